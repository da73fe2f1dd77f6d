# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whole hosts against the real verifier: software TPM, simulated launch, real agent, real HTTPS."""

from __future__ import annotations

import dataclasses
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import requests

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.lab import launch, vdsm
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from ovirt_tcp_plugin.verifier.store import tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token
from tests.conftest import TpmPool

ANSWER_WITHIN_MS = 10_000


class Server:
    """The real verifier as a process of its own, asked as the broker and the administrator ask
    it."""

    def __init__(
        self, directory: Path, processes: Processes, authorities: bytes, **appraisal: Any
    ) -> None:
        (self._port,) = free_ports(1)
        self.url = f"https://127.0.0.1:{self._port}"
        self._processes = processes
        self.ca_file = directory / "state" / "ca.pem"
        self._directory = directory
        (directory / "ek-ca.d").mkdir()
        (directory / "ek-ca.d" / "vendor.pem").write_bytes(authorities)
        self._configure({"profile": "txt+firmware", **appraisal})
        self._call("init", "--name", "127.0.0.1")
        token = self._call("token", "add", "--role", "policy")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = str(self.ca_file)
        self.start()

    def start(self) -> None:
        self._processes.start("verifier", self._command("run"), lambda: listens(self._port))

    def restart(self, **appraisal: Any) -> None:
        """Stop, and start with these options of the appraisal."""
        self._processes.stop("verifier")
        self._configure({"profile": "txt+firmware", **appraisal})
        self.start()

    def enrol(self, host: LabHost) -> None:
        token = secrets.token_hex(16)
        database = Database(f"sqlite:///{self._directory / 'state' / 'verifier.db'}")
        database.transact(lambda c: tokens.add(c, token, Token("enrolment", host.name)))
        database.close()
        host.enrol(token, self.url, self.ca_file)

    def import_from(self, host: LabHost, name: str = "golden") -> None:
        self._post("/v1/reference-values", {"name": name, "host": host.name})

    def result(self, host: LabHost, wait_ms: int = ANSWER_WITHIN_MS) -> dict[str, Any]:
        asked = {"hosts": [host.name], "max_age_ms": None, "wait_ms": wait_ms}
        answer: dict[str, Any] = self._post("/v1/results", asked)["hosts"][0]
        return answer

    def listed(self, host: LabHost) -> dict[str, Any]:
        """Return what the listing of hosts shows."""
        known = self._session.get(self.url + "/v1/hosts", timeout=25).json()["hosts"]
        return {one["host_name"]: one for one in known}[host.name]  # type: ignore[no-any-return]

    def _configure(self, appraisal: dict[str, Any]) -> None:
        content = {
            "server": {
                "address": "127.0.0.1",
                "port": self._port,
                "certificate": str(self._directory / "server.pem"),
                "key": str(self._directory / "server.key"),
            },
            "store": {"directory": str(self._directory / "state")},
            "enrolment": {"ek_authorities": str(self._directory / "ek-ca.d")},
            "appraisal": appraisal,
        }
        (self._directory / "verifier.yaml").write_text(json.dumps(content))

    def _post(self, path: str, content: object) -> dict[str, Any]:
        response = self._session.post(self.url + path, json=content, timeout=25)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def _command(self, *arguments: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "ovirt_tcp_plugin.verifier.main",
            "--config-dir",
            str(self._directory),
            *arguments,
        ]

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            self._command(*arguments), capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tpm_pool: TpmPool) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("verifier")
    with Processes(directory) as processes:
        yield Server(directory, processes, tpm_pool.authorities)


@pytest.fixture(scope="module")
def golden(
    server: Server, tpm_pool: TpmPool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabHost]:
    """An enrolled host whose boot is the reference; each test that changes it boots it anew."""
    directory = tmp_path_factory.mktemp("golden")
    with LabHost("golden.example.com", directory, tpm_pool.state(0), tpm_pool.images) as host:
        host.boot()
        server.enrol(host)
        host.start_agent()
        server.import_from(host)
        yield host


def codes(result: dict[str, Any]) -> list[tuple[int, str]]:
    return [(finding["check"], finding["code"]) for finding in result["findings"]]


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
    lie: Lie, expected: set[tuple[int, str]], server: Server, golden: LabHost, tmp_path: Path
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


def test_another_host_with_the_same_boot_is_trusted(
    server: Server, golden: LabHost, make_host: Callable[..., LabHost]
) -> None:
    host = make_host("second.example.com", chip=1, ak_kind="rsa-2048")
    host.boot()
    server.enrol(host)
    host.start_agent()

    assert server.result(host)["level"] == "trusted"


def test_a_chip_has_one_name(
    server: Server, golden: LabHost, make_host: Callable[..., LabHost]
) -> None:
    """A copy of the golden host's TPM: the same EK under another name."""
    host = make_host("copy.example.com", chip=0)
    host.boot()

    with pytest.raises(errors.Refused) as caught:
        server.enrol(host)
    assert caught.value.code == "ek_in_use"


def test_a_reinstalled_host_enrols_again(
    server: Server, golden: LabHost, make_host: Callable[..., LabHost]
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


def test_a_frozen_agent_is_silence_and_no_lie(server: Server, golden: LabHost) -> None:
    golden.reboot()
    assert server.result(golden)["level"] == "trusted"
    golden.freeze_agent()

    silent = server.result(golden, wait_ms=300)
    golden.thaw_agent()

    assert silent["level"] == "timeout"
    assert codes(silent) == [(0, "no_answer")]
    assert server.result(golden)["level"] == "trusted"


def test_a_power_cut_is_a_reboot(server: Server, golden: LabHost) -> None:
    golden.power_cut()
    golden.start()
    golden.boot()
    golden.start_agent()

    assert server.result(golden)["level"] == "trusted"


def test_the_same_measurements_after_a_reset_without_boot_are_found(
    server: Server, golden: LabHost
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


def test_stops_everything(make_host: Callable[..., LabHost], server: Server) -> None:
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
    tmp_path: Path, tpm_pool: TpmPool, server: Server
) -> None:
    with LabHost("bare.example.com", tmp_path, images=tpm_pool.images) as host:
        host.boot()
        with pytest.raises(errors.Refused, match="ek_uncertified"):
            server.enrol(host)


def test_the_gate_lets_a_vm_start_by_the_verdict_of_this_boot_only(
    server: Server, golden: LabHost, tmp_path: Path
) -> None:
    """The whole way: TPM, agent, server, signature, gate. A reboot closes it until the agent has
    reported."""
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
