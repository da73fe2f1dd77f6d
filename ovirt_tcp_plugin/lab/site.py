# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A whole installation on loopback.

Hosts, attestation server, engine, filterd and broker, each in a process of its own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import ovirtsdk4

from ovirt_tcp_plugin import errors, https
from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from ovirt_tcp_plugin.lab.swtpm import Vendor
from ovirt_tcp_plugin.parent import die_with_parent
from ovirt_tcp_plugin.remote import Remote
from ovirt_tcp_plugin.verifier.authority import Authority, write_key

CLUSTER = "Default"
ADMINISTRATOR = "admin@internal"
PASSWORD = "of the lab's engine"  # noqa: S105 - the engine is simulated, and gone when the lab is
COMMAND_WITHIN_S = 60
CONTROL_WITHIN_S = 10.0
# Journals of hours.
MAX_CONTROL_SIZE = 64 * 1024 * 1024

_PYTHON = [sys.executable, "-m"]


class StageSizes(NamedTuple):
    """How many hosts the stages of the broker's startup attestation have.

    Attributes:
        later: of the second stage and those after it.
    """

    first: int
    later: int


# The options of a role by section and name.
Options = Mapping[str, Mapping[str, Any]]


class LabSite:
    """The installation in one directory.

    Args:
        directory: an existing, empty one.
        size: number of hosts.
        lifetime_s: life of a verdict.
        stages: of the startup attestation.
    """

    def __init__(self, directory: Path, size: int, lifetime_s: float, stages: StageSizes) -> None:
        self.directory = directory
        for name in ("etc", "log", "snapshots", "ek-ca.d", "pki"):
            (directory / name).mkdir()
        self.config = directory / "etc"
        self.lifetime_s = lifetime_s
        self._stages = stages
        self._stack = contextlib.ExitStack()
        self.processes = Processes(directory / "log")
        ports = free_ports(5)
        self.verifier_port = ports[0]
        self.engine_port = ports[1]
        self.control_port = ports[2]
        self.filterd_port = ports[3]
        self.broker_port = ports[4]
        self.verifier_url = f"https://127.0.0.1:{self.verifier_port}"
        self.engine_url = f"https://127.0.0.1:{self.engine_port}/ovirt-engine/api"
        self.ca_file = directory / "verifier" / "ca.pem"
        self.hosts: dict[str, LabHost] = {}
        self._vendor = Vendor(directory / "vendor")
        self.names = [f"host-{number}" for number in range(1, size + 1)]
        self._connection: Optional[ovirtsdk4.Connection] = None

    def __enter__(self) -> LabSite:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close(logout=False)
        self.processes.stop_all()
        self._stack.close()

    # Hosts

    def make_hosts(self) -> None:
        """Make the TPMs, each with its own EK certificate, and give every host power."""
        self._vendor.manufacture([self.directory / name / "tpm" for name in self.names])
        (self.directory / "ek-ca.d" / "vendor.pem").write_bytes(self._vendor.authorities)
        images = launch.make_images(self.directory / "boot")
        for name in self.names:
            host = LabHost(f"{name}.lab", self.directory / name, images=images)
            self.hosts[name] = self._stack.enter_context(host)

    def enrolment_tokens(self) -> dict[str, str]:
        """Return a token for each host. Raises Unavailable: a command fails."""
        commands = [("token", "enrol", self.hosts[name].name) for name in self.names]
        tokens = [output.strip() for output in self._run_verifier_commands(commands)]
        return dict(zip(self.names, tokens))

    def enrol(self, name: str, token: str) -> None:
        """Enrol a host, start its agent, and have its VDSM ask the gate."""
        host = self.hosts[name]
        host.enrol(token, self.verifier_url, self.ca_file)
        host.install_gate(self.directory / "verdict-keys")
        host.start_agent()

    # Attestation server

    def install_verifier(self) -> None:
        """Write the configuration, make the server's authority and the tokens."""
        self._configure("verifier", self._verifier_options())
        self.run_verifier("init", "--name", "127.0.0.1")
        keys = self.directory / "verdict-keys"
        keys.mkdir()
        _, viewer_token, policy_token = self._run_verifier_commands(
            [
                ("verdict-key", "export", str(keys)),
                ("token", "add", "--role", "viewer"),
                ("token", "add", "--role", "policy"),
            ]
        )
        self._write("viewer.token", viewer_token)
        self._write("policy.token", policy_token)
        self._configure("cli", self._cli_options())

    def _verifier_options(self) -> Options:
        directory = self.directory / "verifier"
        return {
            "server": {
                "address": "127.0.0.1",
                "port": self.verifier_port,
                "certificate": str(directory / "server.pem"),
                "key": str(directory / "server.key"),
            },
            "store": {"directory": str(directory)},
            "enrolment": {"ek_authorities": str(self.directory / "ek-ca.d")},
            "appraisal": {"lifetime": self.lifetime_s},
        }

    def _cli_options(self) -> Options:
        return {
            "verifier": {
                "url": self.verifier_url,
                "ca_file": str(self.ca_file),
                "token_file": str(self.config / "policy.token"),
            },
            "broker": {
                "url": f"http://127.0.0.1:{self.broker_port}",
                "token_file": str(self.config / "api.token"),
            },
        }

    def start_verifier(self) -> None:
        """Start the attestation server."""
        self._start("verifier", "ovirt_tcp_plugin.verifier.main", self.verifier_port)

    def run_verifier(self, *arguments: str) -> str:
        """Return what a command of `ovirt-tcp-verifier` prints. Raises Unavailable: it fails."""
        return self._run("verifier", *arguments)

    def _run_verifier_commands(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Return what several commands print, which run two at a time. Raises Unavailable."""
        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
            return list(pool.map(lambda command: self.run_verifier(*command), commands))

    def _run(self, role: str, *arguments: str) -> str:
        command = [*_PYTHON, f"ovirt_tcp_plugin.{role}.main", "--config-dir", str(self.config)]
        with subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        ) as process:
            try:
                output, fault = process.communicate(timeout=COMMAND_WITHIN_S)
            except BaseException:
                # Waited for, too: it must not write into a directory that is being removed.
                process.kill()
                process.wait()
                raise
        if process.returncode != 0:
            raise errors.Unavailable(f"ovirt-tcp-{role}", fault.strip())
        return output

    @property
    def verifier(self) -> Remote:
        """The attestation server's interface, as the policy administrator."""
        return Remote("verifier", self.verifier_url, self.config / "policy.token", self.ca_file)

    # Engine machine

    def start_filterd(self) -> None:
        """Start the external scheduler, before the engine that looks for it."""
        self._configure(
            "filterd",
            {
                "server": {"port": self.filterd_port},
                "snapshots": {"directory": str(self.directory / "snapshots"), "owner": ""},
            },
        )
        self._start("filterd", "ovirt_tcp_plugin.scheduler.main", self.filterd_port)

    def start_engine(self, vms: Sequence[Mapping[str, Any]], timings: Mapping[str, float]) -> None:
        """Start the simulated engine; all hosts are Up."""
        pki = self._make_pki()
        content = {
            "certificate": str(pki / "engine.pem"),
            "key": str(pki / "engine.key"),
            "users": {ADMINISTRATOR: PASSWORD},
            "hosts": [self._engine_host(name) for name in self.names],
            "vms": [{"cluster": CLUSTER, **vm} for vm in vms],
            "external_scheduler": f"http://127.0.0.1:{self.filterd_port}/",
            "timings": dict(timings),
            "port": self.engine_port,
            "control_port": self.control_port,
        }
        self._write("engine.json", json.dumps(content, indent=2))
        command = [*_PYTHON, "ovirt_tcp_plugin.lab.engine", str(self.config / "engine.json")]
        self.processes.start("engine", command, self._engine_listens)

    def _make_pki(self) -> Path:
        """Make the engine's authority and certificate; return their directory."""
        directory = self.directory / "pki"
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate, key = Authority.create(directory, now).issue_server(["127.0.0.1"], now)
        (directory / "engine.pem").write_bytes(certificate)
        write_key(directory / "engine.key", key)
        return directory

    def _engine_listens(self) -> bool:
        return listens(self.engine_port) and listens(self.control_port)

    def _engine_host(self, name: str) -> Mapping[str, str]:
        return {
            "name": name,
            "address": f"{name}.lab",
            "cluster": CLUSTER,
            "hook_directory": str(self.hosts[name].hooks),
        }

    def start_broker(self) -> None:
        """Start the relying party."""
        hooks = self.directory / "hooks"
        if not hooks.exists():
            hooks.mkdir(mode=0o755)
            for path in _engine_hooks().glob("*.py"):
                # Copied, because a checkout may be writable by a group, and then no hook is run.
                shutil.copy(path, hooks)
                (hooks / path.name).chmod(0o644)
        self._write("engine.password", PASSWORD)
        self._configure("broker", self._broker_options(hooks))
        if not (self.config / "api.token").exists():
            token = self._run("broker", "token", "add", "--role", "operator")
            self._write("api.token", token)
        self._start("broker", "ovirt_tcp_plugin.broker.main", self.broker_port)

    @property
    def broker(self) -> Remote:
        """The broker's interface."""
        return Remote("broker", f"http://127.0.0.1:{self.broker_port}", self.config / "api.token")

    @property
    def engine(self) -> Any:
        """The engine's API through the real SDK, as the administrator."""
        if self._connection is None:
            self._connection = ovirtsdk4.Connection(
                url=self.engine_url,
                username=ADMINISTRATOR,
                password=PASSWORD,
                ca_file=str(self.directory / "pki" / "ca.pem"),
                timeout=20,
            )
        return self._connection.system_service()

    def control(self, what: str, message: Optional[Mapping[str, Any]] = None) -> Any:
        """Ask or tell the simulated engine something that no engine could be asked or told."""
        method = "GET" if message is None else "POST"
        url = f"http://127.0.0.1:{self.control_port}/{what}"
        request = https.json_request("the engine's control", method, url, message, {}, None)
        bounds = https.Bounds(CONTROL_WITHIN_S, CONTROL_WITHIN_S, MAX_CONTROL_SIZE)
        reply = https.exchange(request, bounds)
        if reply.status != 200:
            raise errors.Unavailable(request.peer, f"it answers with status {reply.status}")
        return json.loads(reply.body)["answer"]

    def _broker_options(self, hooks: Path) -> Options:
        startup = {
            "first_stage_query_size": self._stages.first,
            "second_stage_query_size": self._stages.later,
        }
        return {
            "engine": {
                "url": self.engine_url,
                "username": ADMINISTRATOR,
                "password_file": str(self.config / "engine.password"),
                "ca_file": str(self.directory / "pki" / "ca.pem"),
            },
            "verifier": {
                "urls": [self.verifier_url],
                "ca_file": str(self.ca_file),
                "token_file": str(self.config / "viewer.token"),
                "wait_s": 1.5,
                "connect_timeout_s": 1.0,
            },
            "verdicts": {"lifetime_s": self.lifetime_s, "untrusted_refresh_s": 1.0},
            "startup": startup,
            "intervals": {"poll_s": 0.5, "full_s": 5.0},
            "snapshot": {"directory": str(self.directory / "snapshots")},
            "api": {"port": self.broker_port},
            "hooks": {"directory": str(hooks)},
            "state": {"directory": str(self.directory / "broker")},
        }

    def _start(self, name: str, module: str, port: int) -> None:
        command = [*_PYTHON, module, "--config-dir", str(self.config), "run"]
        self.processes.start(name, command, lambda: listens(port))

    def _configure(self, role: str, options: Options) -> None:
        # JSON is YAML.
        self._write(f"{role}.yaml", json.dumps(options, indent=2))

    def _write(self, name: str, content: str) -> None:
        path = self.config / name
        path.touch(0o600)
        path.write_text(content)


def _engine_hooks() -> Path:
    """Return the directory of the engine hooks.

    It is beside the package in a checkout, and under share/ when installed.
    """
    checkout = Path(__file__).parents[2] / "hooks" / "engine"
    installed = Path(sys.prefix) / "share" / "ovirt-tcp" / "hooks" / "engine"
    for directory in (checkout, installed):
        if directory.is_dir():
            return directory
    raise errors.NotFound("directory of engine hooks", f"{checkout} or {installed}")


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """Give a directory that is gone afterwards.

    Its name is short: socket addresses do not fit into a long one.
    """
    with tempfile.TemporaryDirectory(prefix="otcp-") as name:
        yield Path(name)
