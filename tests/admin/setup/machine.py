# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""An engine machine as setup meets it: a stock engine with its `engine-config`, an external
scheduler, and a broker.yaml."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from ovirt_tcp_plugin.admin.cli import main
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.engine.sdk import Access
from ovirt_tcp_plugin.lab import engine_config
from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from ovirt_tcp_plugin.placement.inventory import WALL_DESCRIPTION, wall_name
from tests.broker.site import ADMINISTRATOR, PASSWORD, TIMINGS, until

BROKER = "broker@internal"
TABLES = ("units", "policies", "roles", "users", "clusters", "groups", "labels", "hosts", "vms")


class Machine:
    """Everything in one directory. The journal is in `setup`, the engine's options in `rows`."""

    def __init__(
        self,
        directory: Path,
        pki: Path,
        scheduler: str,
        clusters: tuple[str, ...] = ("One", "Two"),
        **timings: float,
    ) -> None:
        self.directory, self.state, self.pki = directory, directory / "setup", pki
        self.mark = directory / "engine.up"
        self.command, self._options = engine_config.install(directory)
        rows = self.rows
        # Each level costs several runs of the command.
        rows["UserDefinedVMProperties"] = {"4.8": ""}
        self._options.write_text(json.dumps(rows))
        self.write(ExternalSchedulerServiceURL={"general": scheduler})
        self.engine = EngineSimulator(
            Config(
                str(pki / "engine.pem"),
                str(pki / "engine.key"),
                {ADMINISTRATOR: PASSWORD},
                directory={BROKER: PASSWORD},
                clusters=clusters,
                hosts=[{"name": f"h{n}", "address": f"h{n}.lab", "cluster": "One"} for n in (1, 2)],
                vms=[{"name": f"vm{n}", "cluster": "One"} for n in (1, 2)],
                options=str(self._options),
                up_mark=str(self.mark),
                timings={**TIMINGS, "restart": 0.1, **timings},
            )
        )
        self.engine.start()
        (directory / "password").write_text(PASSWORD + "\n")
        engine = {
            "url": self.engine.url,
            "username": BROKER,
            "ca_file": str(pki / "ca.pem"),
            "timeout_s": 5.0,
            "start_file": str(self.mark),
        }
        content = {
            "engine": engine,
            "verifier": {"urls": ["https://attest.lab"]},
            "api": {"port": 1},
            "state": {"directory": str(directory / "state")},
        }
        (directory / "broker.yaml").write_text(json.dumps(content))

    def setup(self, *arguments: str, yes: bool = True, answer: str = "") -> Result:
        """Run `ovirt-tcp setup`."""
        given = [
            "--engine-config",
            str(self.command),
            "--journal",
            str(self.state),
            "--password-file",
        ]
        password = str(self.directory / "password")
        agreed = ["--yes"] if yes else []
        whole = [
            "--config-dir",
            str(self.directory),
            "setup",
            *given,
            password,
            *agreed,
            *arguments,
        ]
        return self.run(whole, answer)

    def run(self, arguments: list[str], answer: str = "") -> Result:
        """Run `ovirt-tcp`."""
        return CliRunner().invoke(main, arguments, input=answer)

    def both_phases(self, *arguments: str) -> Result:
        """Run phase 1, restart the engine, and run phase 2."""
        assert self.setup(*arguments).exit_code == 0
        self.restart()
        return self.setup(*arguments)

    def restart(self) -> None:
        """Restart the engine, and wait until it is there."""
        self.engine.restart()
        until(lambda: not self.engine.away_until)
        self.engine.discovery.wait(5)

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        """The engine's options as engine-config has them."""
        return json.loads(self._options.read_text())  # type: ignore[no-any-return]

    def write(self, **rows: Mapping[str, str]) -> None:
        """Change options as a colleague would."""
        known = self.rows
        for key, versions in rows.items():
            known[key] = {**known[key], **versions}
        self._options.write_text(json.dumps(known))

    def journal(self) -> list[dict[str, Any]]:
        """The acts of the journal."""
        path = self.state / "journal.json"
        return json.loads(path.read_text())["acts"] if path.exists() else []

    def administration(self) -> AdminClient:
        """The engine, as an administrator."""
        return AdminClient(
            Access(self.engine.url, ADMINISTRATOR, lambda: PASSWORD, self.pki / "ca.pem", 5.0)
        )

    def cluster(self, name: str = "One") -> model.SimulatedCluster:
        return next(one for one in self.engine.model.clusters.values() if one.name == name)

    def wall(self, cluster: str = "One") -> model.AffinityGroup:
        """Put a wall into a cluster, as the broker would."""
        owner = self.cluster(cluster)
        enforcing = model.Rule(enabled=True, enforcing=True, positive=True)
        wall = model.AffinityGroup(
            model.new_id(), wall_name(owner.id), owner.id, enforcing, model.Rule()
        )
        wall.description = WALL_DESCRIPTION
        self.engine.model.groups[wall.id] = wall
        return wall

    def unit(self) -> str:
        """The id of our filter unit."""
        units = self.engine.model.units.values()
        return next(one.id for one in units if one.name == "TrustedHosts")

    def policy(self, name: str) -> model.SchedulingPolicy:
        return next(one for one in self.engine.model.policies.values() if one.name == name)

    def picture(self) -> dict[str, Any]:
        """All that the engine knows, and its options."""
        tables = {
            name: {uid: _plain(row) for uid, row in getattr(self.engine.model, name).items()}
            for name in TABLES
        }
        return {**tables, "options": self.rows}

    def state_of(self, kind: str) -> list[str]:
        return [one["state"] for one in self.journal() if one["kind"] == kind]


def _plain(row: Any) -> dict[str, Any]:
    values = {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)
        if field.name != "scheduling"
    }
    return {
        name: repr(sorted(value) if isinstance(value, set) else value)
        for name, value in values.items()
    }
