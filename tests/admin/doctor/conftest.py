# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A whole installation that is well: engine, broker, filterd and attestation server; each test
breaks one thing of it."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ovirt_tcp_plugin import config, gate, tokens
from ovirt_tcp_plugin.admin.cli import main
from ovirt_tcp_plugin.admin.doctor import collector
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.api import server as web
from ovirt_tcp_plugin.broker.store.tokens import Tokens
from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from tests.broker.site import Site, until

TOKEN = "of the API"
CHECKSUM = hashlib.sha256(Path(gate.__file__).read_bytes()).hexdigest()
GATE = "50_ovirt_tcp_gate.py"
GATE_POINTS = ("before_vm_start", "before_vm_migrate_destination", "before_vm_dehibernate")
VMS = [
    {"name": "vm1", "host": "h1"},
    {"name": "vm2", "host": "h2"},
    {"name": "HostedEngine", "host": "h3", "origin": "hosted_engine"},
]
PYTHON = [sys.executable, "-m"]


class Installation:
    """Engine and broker in this process, with a broker that has settled and repairs nothing any
    more."""

    def __init__(self, directory: Path, pki: Path, processes: Processes) -> None:
        self.directory, self.processes = directory, processes
        self.site = Site(directory, pki, 3, VMS)
        self._add_to_engine()
        self.site.start()
        until(
            lambda: (
                self.site.inside() == {"h1", "h2", "h3"}
                and self.site.trusted_in_snapshot() == self.site.inside()
            )
        )
        until(lambda: len(self.wall.vms) == 2)
        until(lambda: len(json.loads(self.snapshot_file.read_text(encoding="utf-8"))["vms"]) == 3)
        self.site.service.stop()
        verifier, filterd = free_ports(2)
        self._start_verifier(verifier)
        self._serve_broker()
        self.options = config.show(self.site.options)
        self.options["verifier"] = {
            "urls": [f"https://127.0.0.1:{verifier}"],
            "ca_file": str(directory / "verifier" / "ca.pem"),
            "token_file": str(directory / "viewer.token"),
        }
        self.cli = {
            "broker": {
                "url": f"http://127.0.0.1:{self.api_port}",
                "token_file": str(directory / "api.token"),
            }
        }
        self.options["intervals"] = {}
        self.filterd = {
            "server": {"port": filterd},
            "snapshots": {"directory": str(directory / "snapshot.d"), "owner": ""},
        }
        self._configure("filterd", self.filterd)
        self.engine_config = directory / "engine-config"
        command = [
            *PYTHON,
            "ovirt_tcp_plugin.scheduler.main",
            "--config-dir",
            str(directory),
            "run",
        ]
        processes.start("filterd", command, lambda: listens(filterd))

    @property
    def tables(self) -> model.Model:
        return self.site.engine.model

    @property
    def wall(self) -> model.AffinityGroup:
        wall = self.site.wall()
        assert wall is not None
        return wall

    @property
    def policy(self) -> model.SchedulingPolicy:
        return self.tables.policies[self.tables.clusters[self.site.cluster].policy]

    @property
    def snapshot_file(self) -> Path:
        return self.directory / "snapshot.d" / f"{self.site.cluster}.json"

    def vm(self, name: str) -> model.SimulatedVm:
        return next(one for one in self.tables.vms.values() if one.name == name)

    def configure_engine(self, enabled: str, url: str, response_ms: str) -> None:
        """Have `engine-config -g` tell this of the external scheduler."""
        values = {"Enabled": enabled, "ServiceURL": url, "ResponseTimeout": response_ms}
        cases = (f"*{key}) echo $2: {value} version: general;;" for key, value in values.items())
        script = "\n".join(["#!/bin/sh", 'case "$2" in', *cases, "*) exit 1;;", "esac"])
        self.engine_config.write_text(script, encoding="utf-8")
        self.engine_config.chmod(0o755)

    def look(
        self,
        broker: dict[str, Any] | None = None,
        filterd: dict[str, Any] | None = None,
        within: int = 20,
        cli: dict[str, Any] | None = None,
        engine: Sequence[str] | None = None,
    ) -> Look:
        """Have the doctor look, with these options changed; `engine` has those of
        `configure_engine`, or none at all."""
        place = _merged(self.filterd, filterd or {})
        if engine is None or engine:
            self.configure_engine(
                *(engine or ("true", f"http://localhost:{place['server']['port']}/", "3000"))
            )
        self._configure("cli", _merged(self.cli, cli or {}))
        self._configure("broker", _merged(self.options, broker or {}))
        self._configure("filterd", place)
        began = time.monotonic()
        done = self.run("--json", "--within", str(within))
        assert done.exit_code in (0, 1), done.output
        return Look(json.loads(done.output), done.exit_code, time.monotonic() - began)

    def run(self, *arguments: str) -> Result:
        """Run the command with the options of the last look."""
        command = [
            "--config-dir",
            str(self.directory),
            "doctor",
            "--engine-config",
            str(self.engine_config),
        ]
        return CliRunner().invoke(main, [*command, *arguments])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self.site.engine.stop()

    def _add_to_engine(self) -> None:
        """Let the hosts report the gate, and have a cluster that is no pool."""
        for host in self.tables.hosts.values():
            host.hooks = {(point, GATE): CHECKSUM for point in GATE_POINTS}
        other = model.SimulatedCluster(model.new_id(), "Other")
        foreign = model.SimulatedHost(model.new_id(), "foreign", "foreign.lab", other.id)
        self.tables.clusters[other.id], self.tables.hosts[foreign.id] = other, foreign

    def _start_verifier(self, port: int) -> None:
        directory = self.directory / "verifier"
        (self.directory / "ek-ca.d").mkdir()
        server = {
            "port": port,
            "certificate": str(directory / "server.pem"),
            "key": str(directory / "server.key"),
        }
        self._configure(
            "verifier",
            {
                "server": {"address": "127.0.0.1", **server},
                "store": {"directory": str(directory)},
                "enrolment": {"ek_authorities": str(self.directory / "ek-ca.d")},
            },
        )
        command = [*PYTHON, "ovirt_tcp_plugin.verifier.main", "--config-dir", str(self.directory)]
        subprocess.run([*command, "init", "--name", "127.0.0.1"], check=True, capture_output=True)
        made = subprocess.run(
            [*command, "token", "add", "--role", "viewer"], check=True, capture_output=True
        )
        write_secret(self.directory / "viewer.token", made.stdout)
        self.processes.start("verifier", [*command, "run"], lambda: listens(port))

    def _serve_broker(self) -> None:
        write_secret(self.directory / "api.token", TOKEN.encode("ascii"))
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(10)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        known = Tokens(self.site.database)
        known.add(TOKEN, "viewer", "", tokens.NEVER)
        context = web.Context(
            self.site.state, self.site.service, self.site.history, known, self.site.clock
        )
        server, self.api_port = web.serve(context, settings.ApiOptions(port=0))
        ready.set()
        await self._stopped.wait()
        server.stop()
        await server.close_all_connections()

    def _configure(self, role: str, content: dict[str, Any]) -> None:
        (self.directory / f"{role}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


class Look:
    """What the doctor found: findings by code, and how it ended."""

    def __init__(self, found: list[dict[str, str]], status: int, took_s: float) -> None:
        self.found, self.status, self.took_s = found, status, took_s
        self.by_code = {one["code"]: one for one in found}

    @property
    def bad(self) -> dict[str, str]:
        """Codes of what is not ok, with their states."""
        return {one["code"]: one["state"] for one in self.found if one["state"] != "ok"}


def write_secret(path: Path, secret: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(secret)


def _merged(options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the options with these changes; one that is changed to None is not written at all."""
    merged = copy.deepcopy(options)
    for section, values in changes.items():
        for name, value in values.items():
            if value is None:
                merged[section].pop(name, None)
            else:
                merged[section][name] = value
    return merged


@pytest.fixture(scope="package")
def installation(
    tmp_path_factory: pytest.TempPathFactory, site_pki: Path
) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("installation")
    with Processes(directory) as processes:
        made = Installation(directory, site_pki, processes)
        yield made
        made.stop()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference is looked at again at once: nothing here repairs it."""
    monkeypatch.setattr(collector, "PAUSE_S", 0.01)
