# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A host without TXT against the real verifier under the profile uefi+grub.

Software TPM, boot by shim and GRUB, real agent, real HTTPS.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.launch import Images
from ovirt_tcp_plugin.lab.machine import Machine, environment
from ovirt_tcp_plugin.lab.processes import Processes
from tests.conftest import TpmPool
from tests.lab.real_verifier import RealVerifier

GOOD = Machine()


def evil_initrd(images: Images, directory: Path) -> Images:
    initrd = directory / images.initrd.name
    initrd.write_bytes(images.initrd.read_bytes() + b"evil")
    return dataclasses.replace(images, initrd=initrd)


def test_initrd_and_command_line_count_and_what_varies_does_not(
    tmp_path: Path, tpm_pool: TpmPool
) -> None:
    with Processes(tmp_path) as processes:
        server = RealVerifier(tmp_path, processes, tpm_pool.authorities, profile="uefi+grub")
        with LabHost("grub.example.com", tmp_path, tpm_pool.state(0), tpm_pool.images) as host:
            host.boot(machine=GOOD, measured_launch=False)
            server.enrol(host)
            host.start_agent()
            server.import_from(host)

            def codes_after(images: Images, machine: Machine = GOOD) -> list[str]:
                host.reboot(images, machine=machine, measured_launch=False)
                result = server.result(host)
                assert result["level"] == ("untrusted" if result["findings"] else "trusted")
                return [finding["code"] for finding in result["findings"]]

            line = f"{host.images.kernel_cmdline} init=/bin/sh"
            evil_line = dataclasses.replace(host.images, kernel_cmdline=line)
            assert codes_after(evil_line) == ["command_line_differs"]

            assert codes_after(evil_initrd(host.images, tmp_path)) == ["initrd_differs"]
            # Judged again from what the store keeps, the texts among it.
            server.import_from(host, "another")
            assert server.result(host)["level"] == "trusted"

            booted = dataclasses.replace(GOOD, environment=environment("boot_success=1"))
            assert codes_after(host.images, booted) == []
