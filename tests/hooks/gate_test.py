# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The gate, run as VDSM runs it: what a VM is refused for, and what starts."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ovirt_tcp_plugin import gate
from ovirt_tcp_plugin.lab import vdsm
from ovirt_tcp_plugin.messages.result import Level
from tests.hooks.gate_faults import (
    FAULTS,
    missing,
    no_config,
)
from tests.hooks.gated_host import KEY, OTHER_KEY, ROOT, VM, Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "code"), FAULTS, ids=[f"{n}-{code}" for n, (_, code) in enumerate(FAULTS)]
)
def test_refuses_with_its_code_in_one_sentence(
    host: Host, spoil: Callable[[Host], object], code: str
) -> None:
    spoil(host)

    assert host.refusal() == code


@pytest.mark.parametrize("point", vdsm.GATE_POINTS)
def test_each_point_refuses_and_lets_through(host: Host, point: str) -> None:
    assert host.start(point) == vdsm.HookOutcome("<domain/>", "", (0,))
    host.sign(level=Level.UNTRUSTED)
    assert host.refusal(point=point) == "not_trusted"


def test_a_hanging_openssl_is_refused_in_time_and_not_left_behind(
    host: Host, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    slow = tmp_path / "openssl"
    slow.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 60\n")
    slow.chmod(0o755)
    host.install(OPENSSL=str(slow))
    began = time.monotonic()

    assert host.refusal() == "no_openssl"

    assert time.monotonic() - began < 4
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_alarm_refuses_whatever_hangs(host: Host) -> None:
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"
    source = script.read_text()
    script.write_text(
        source.replace("    options = read_config()\n", "    while True:\n        pass\n", 1)
    )
    began = time.monotonic()

    assert host.refusal() == "timeout"

    assert time.monotonic() - began < 4


def test_an_error_that_nobody_foresaw_is_refused(host: Host) -> None:
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"
    script.write_text(
        script.read_text().replace(
            "    options = read_config()\n", "    options = {}['nothing']\n", 1
        )
    )

    assert host.refusal() == "gate_failed"


def test_a_gate_that_cannot_even_be_read_fails_the_start(host: Host) -> None:
    """Exit status 1 at this point fails the operation, too."""
    (host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py").write_text("#!/usr/bin/python3 -I\n)")

    assert host.start().failure


@pytest.mark.parametrize("mark", ["true", "TRUE", "yes", "0"])
def test_a_marked_vm_needs_the_verdict(host: Host, mark: str) -> None:
    host.write_config("scope = marked_vms")
    missing(host)

    assert host.refusal(trusted_host_flag=mark) == "no_verdict"


@pytest.mark.parametrize(
    "properties", [{}, {"trusted_host_flag": "false"}, {"trusted_host_flag": ""}]
)
def test_a_vm_that_is_not_marked_starts_untouched(host: Host, properties: dict[str, str]) -> None:
    host.write_config("scope = marked_vms  # dynamic filtering")
    missing(host)

    assert host.start(**properties) == vdsm.HookOutcome("<domain/>", "", (0,))


def test_the_mark_counts_for_nothing_where_all_vms_need_trust(host: Host) -> None:
    missing(host)

    assert host.refusal(trusted_host_flag="false") == "no_verdict"


def test_custom_properties_of_a_vm_do_not_reach_into_the_gate(host: Host, tmp_path: Path) -> None:
    """They are in the environment under any name.

    Of Python, of the loader's search, or of openssl.
    """
    (tmp_path / "json.py").write_text("import os; os._exit(0)")
    (tmp_path / "openssl.cnf").write_text("openssl_conf = nowhere\n.include /no/such\n")
    host.sign(OTHER_KEY)
    crafted = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONSTARTUP": str(tmp_path / "json.py"),
        "PATH": str(tmp_path),
        "OPENSSL_CONF": str(tmp_path / "openssl.cnf"),
        "CONFIG": "/dev/null",
        "VERDICT": "/dev/null",
    }

    assert host.refusal(**crafted) == "bad_signature"
    host.sign()
    assert host.start(**crafted).statuses == (0,)


def test_the_engines_own_vm_starts_even_without_any_configuration(host: Host) -> None:
    host.engine.write_text(f"fqdn=engine.example.com\nvmid={VM}\n")
    no_config(host)

    assert host.start().statuses == (0,)
    assert host.refusal(vm_id="another") == "gate_config"


def test_exempt_vms_start_and_others_do_not(host: Host) -> None:
    host.write_config(f"exempt_vms = another {VM.upper()}")
    missing(host)

    assert host.start().statuses == (0,)
    assert host.refusal(vm_id="") == "no_verdict"


def test_each_use_of_an_exemption_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """VDSM logs what good hooks write, too."""
    monkeypatch.setattr(gate, "decide", lambda environment: f"VM {VM} is exempt by gate.conf")

    assert gate.main() == 0
    signal.alarm(0)

    assert capfd.readouterr().err == f"ovirt-tcp: VM {VM} is exempt by gate.conf\n"


def test_either_key_counts_while_the_key_changes(host: Host) -> None:
    host.trust(OTHER_KEY, "two.pem")
    for key in (KEY, OTHER_KEY):
        host.sign(key)
        assert host.start().statuses == (0,)


def test_a_verdict_of_this_host_by_name_counts(host: Host) -> None:
    host.write_config("host = HOST-1\n")

    assert host.start().statuses == (0,)


def test_every_signature_of_jws_is_written_as_openssl_takes_it() -> None:
    """r and s have leading zeros or a leading one bit now and then."""
    for raw in (
        b"\0" * 31 + b"\x01" + b"\xff" * 32,
        b"\x80" + b"\0" * 31 + b"\x7f" + b"\0" * 31,
        b"\0" * 64,
    ):
        numbers = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        assert gate.encode_signature(raw) == encode_dss_signature(*numbers)


def test_the_hook_files_are_the_gate_and_can_be_executed() -> None:
    for point in vdsm.GATE_POINTS:
        file = ROOT / "hooks" / "vdsm" / point / "50_ovirt_tcp_gate.py"
        assert file.read_bytes() == (ROOT / "ovirt_tcp_plugin" / "gate.py").read_bytes()
        assert file.stat().st_mode & stat.S_IXUSR
        assert file.read_text().startswith("#!/usr/bin/python3 -I\n")


def test_the_samples_options_are_known(host: Host) -> None:
    host.write_config((ROOT / "examples" / "gate.conf").read_text())

    assert host.start().statuses == (0,)


def test_needs_no_module_beyond_the_standard_library() -> None:
    done = subprocess.run(
        [
            "/usr/bin/python3",
            "-I",
            "-S",
            "-c",
            f"exec(open({str(ROOT / 'ovirt_tcp_plugin/gate.py')!r}).read())",
        ],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        env={},
    )
    assert done.returncode in (0, 2), done.stderr
    assert "refused (gate_config)" in done.stderr


def test_a_signal_from_outside_fails_the_start(host: Host) -> None:
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"
    killed = f"    os.kill(os.getpid(), {int(signal.SIGTERM)})\n"
    script.write_text(script.read_text().replace("    options = read_config()\n", killed, 1))

    assert host.start().failure
