# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whole hosts against the real verifier: software TPM, simulated launch, real agent, real HTTPS."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.lab import launch, vdsm
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.processes import Processes
from tests.conftest import TpmPool
from tests.lab.real_verifier import ANSWER_WITHIN_MS, RealVerifier, codes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tpm_pool: TpmPool) -> Iterator[RealVerifier]:
    directory = tmp_path_factory.mktemp("verifier")
    with Processes(directory) as processes:
        yield RealVerifier(directory, processes, tpm_pool.authorities)


@pytest.fixture(scope="module")
def golden(
    server: RealVerifier, tpm_pool: TpmPool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabHost]:
    """An enrolled host whose boot is the reference; each test that changes it boots it anew."""
    directory = tmp_path_factory.mktemp("golden")
    with LabHost("golden.example.com", directory, tpm_pool.state(0), tpm_pool.images) as host:
        host.boot()
        server.enrol(host)
        host.start_agent()
        server.import_from(host)
        yield host


@dataclasses.dataclass(frozen=True)
class Lie:
    """A boot that is not good, or not told truly."""

    images: Optional[Callable[[launch.Images, Path], launch.Images]] = None
    log: Optional[Callable[[bytes], bytes]] = None
    measured_launch: bool = True
    write_log: bool = True


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        pytest.param(Lie(launch.tamper_tboot), {(8, "mle_differs")}, id="tampered tboot"),
        pytest.param(Lie(launch.tamper_kernel), {(8, "kernel_differs")}, id="tampered kernel"),
        pytest.param(
            Lie(launch.tamper_tboot, lambda good: good),
            {(7, "log_differs"), (8, "steps_unproven")},
            id="tampered tboot with a good log",
        ),
        pytest.param(
            Lie(launch.tamper_kernel, lambda good: good),
            {(7, "log_differs"), (8, "steps_unproven")},
            id="tampered kernel with a good log",
        ),
        pytest.param(
            Lie(log=lambda good: good, measured_launch=False),
            {(7, "log_without_launch"), (8, "no_launch")},
            id="no launch with a good log",
        ),
        pytest.param(Lie(measured_launch=False), {(8, "no_launch")}, id="no launch and no log"),
        pytest.param(Lie(log=launch.truncate), {(7, "log_malformed")}, id="log cut short"),
        pytest.param(
            Lie(log=lambda good: good + bytes(100) + b"x"),
            {(7, "log_malformed")},
            id="rubbish behind the log",
        ),
        pytest.param(Lie(log=lambda good: b""), {(7, "log_malformed")}, id="empty log"),
        pytest.param(Lie(write_log=False), {(7, "log_missing")}, id="no log"),
    ],
)
def test_a_lie_is_found_and_a_good_boot_forgiven(
    lie: Lie, expected: set[tuple[int, str]], server: RealVerifier, golden: LabHost, tmp_path: Path
) -> None:
    golden.reboot(
        lie.images(golden.images, tmp_path) if lie.images else None,
        measured_launch=lie.measured_launch,
        forged_log=lie.log(golden.good_log()) if lie.log else None,
        write_log=lie.write_log,
    )
    result = server.result(golden)
    assert result["level"] == "untrusted"
    assert expected <= set(codes(result))
    assert result["boot_id"] == golden.boot_id_file.read_text().strip()

    golden.reboot()
    assert server.result(golden)["level"] == "trusted"
    # The agent writes it when the answer is with it, which may be after it is with us.
    while golden.status().get("level") != "trusted":
        time.sleep(0.01)


def test_the_golden_hosts_reference_values_hold_for_a_second_host(
    server: RealVerifier, golden: LabHost, make_host: Callable[..., LabHost]
) -> None:
    host = make_host("second.example.com", chip=1, ak_kind="rsa-2048")
    host.boot()
    server.enrol(host)
    host.start_agent()

    assert server.result(host)["level"] == "trusted"


def test_a_chip_has_one_name(
    server: RealVerifier, golden: LabHost, make_host: Callable[..., LabHost]
) -> None:
    """A copy of the golden host's TPM: the same EK under another name."""
    host = make_host("copy.example.com", chip=0)
    host.boot()

    with pytest.raises(errors.Refused) as caught:
        server.enrol(host)
    assert caught.value.code == "ek_in_use"


def test_a_reinstalled_host_enrols_again(
    server: RealVerifier, golden: LabHost, make_host: Callable[..., LabHost]
) -> None:
    host = make_host("reinstalled.example.com", chip=2)
    host.boot()
    server.enrol(host)
    before = (host.state_directory / "ak.json").read_bytes()
    host.forget_enrolment()

    server.enrol(host)
    host.start_agent()

    assert (host.state_directory / "ak.json").read_bytes() != before
    assert server.result(host)["level"] == "trusted"


def test_a_frozen_agent_is_silence_and_no_lie(server: RealVerifier, golden: LabHost) -> None:
    golden.reboot()
    assert server.result(golden)["level"] == "trusted"
    golden.freeze_agent()

    silent = server.result(golden, wait_ms=300)
    golden.thaw_agent()

    assert silent["level"] == "timeout"
    assert codes(silent) == [(0, "no_answer")]
    assert server.result(golden)["level"] == "trusted"


def test_a_power_cut_is_a_reboot(server: RealVerifier, golden: LabHost) -> None:
    golden.power_cut()
    golden.start()
    golden.boot()
    golden.start_agent()

    assert server.result(golden)["level"] == "trusted"


def test_the_same_measurements_after_a_reset_without_boot_are_found(
    server: RealVerifier, golden: LabHost
) -> None:
    """The TPM was reset under a running kernel, and the launch played again: the boot id tells."""
    golden.reboot()
    assert server.result(golden)["level"] == "trusted"
    boot_id = golden.boot_id_file.read_text()
    golden.stop_agent()
    golden.boot()
    golden.boot_id_file.write_text(boot_id)
    golden.start_agent()

    result = server.result(golden)

    assert (5, "reset_without_boot") in codes(result)
    golden.reboot()
    assert server.result(golden)["level"] == "trusted"


def test_stops_everything(make_host: Callable[..., LabHost], server: RealVerifier) -> None:
    host = make_host("short.example.com", chip=3)
    host.boot()
    server.enrol(host)
    host.start_agent()
    assert host.agent_running

    host.stop()

    assert not host.agent_running
    with pytest.raises(errors.Unavailable, match="does not run"):
        host.connect()


def test_a_host_without_certified_chip_cannot_enrol(
    tmp_path: Path, tpm_pool: TpmPool, server: RealVerifier
) -> None:
    with LabHost("bare.example.com", tmp_path, images=tpm_pool.images) as host:
        host.boot()
        with pytest.raises(errors.Refused, match="ek_uncertified"):
            server.enrol(host)


def test_the_gate_lets_a_vm_start_by_the_verdict_of_this_boot_only(
    server: RealVerifier, golden: LabHost, tmp_path: Path
) -> None:
    """The whole way: TPM, agent, server, signature, gate.

    A reboot closes it until the agent has reported.
    """
    keys = tmp_path / "verdict-keys"
    keys.mkdir()
    server._call("verdict-key", "export", str(keys))
    golden.reboot()
    golden.install_gate(keys)
    assert server.result(golden)["level"] == "trusted"
    _wait_for(lambda: vdsm.run_hooks(golden.hooks, "before_vm_start").failure == "")
    golden.kill_agent()
    golden.boot()

    refused = vdsm.run_hooks(golden.hooks, "before_vm_start")

    assert refused.failure.startswith("ovirt-tcp: refused (other_boot): ")
    golden.start_agent()
    _wait_for(lambda: vdsm.run_hooks(golden.hooks, "before_vm_start").failure == "")


def _wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ANSWER_WITHIN_MS / 1000
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
