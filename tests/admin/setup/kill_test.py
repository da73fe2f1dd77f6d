# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Setup and its removal, killed at any moment and run again: nothing is lost, and nothing is done
twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ovirt_tcp_plugin.admin.setup.journal import Journal
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from tests import soak
from tests.admin.setup.machine import Machine

# What changes something: at the engine, in its configuration, in the journal.
CHANGES = [
    (Journal, "_write"),
    (EngineConfig, "_change"),
    *(
        (AdminClient, name)
        for name in (
            *(
                "add_policy",
                "add_filter",
                "add_weight",
                "set_balance",
                "set_properties",
                "remove_policy",
                "remove_unit",
            ),
            *("use_policy", "add_role", "remove_role", "grant", "revoke"),
            *("remove_group", "activate"),
        )
    ),
]
CYCLES = 40
# A policy that was begun is made again as a whole, of some 35 changes: killed much more often, none
# would ever be finished.
KILLED_AT = 0.02


class Killed(BaseException):
    """The process is no more."""


class Killer:
    """Kills before or after a change, at random; the rest of the code sees nothing of it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.kills = 0
        self.awake = False

    def deadly(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            self._may_kill()
            result = change(*arguments, **named)
            self._may_kill()
            return result

        return changed

    def _may_kill(self) -> None:
        if self.awake and self._chance.random() < KILLED_AT:
            self.kills += 1
            raise Killed


def finish(machine: Machine, killer: Killer, *arguments: str) -> None:
    """Run setup until it is not killed any more."""
    killer.awake = True
    while True:
        try:
            done = machine.setup(*arguments)
        except Killed:
            continue
        assert done.exit_code == 0 or "has not been started since phase 1" in done.output, (
            done.output
        )
        killer.awake = False
        return


@pytest.mark.soak
def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write(UserDefinedVMProperties={"4.8": "a=^x$"})
    machine.restart()
    before = machine.picture()
    machine.both_phases("--cluster", "One")
    whole = telling(machine)
    machine.setup("--remove")
    machine.restart()
    assert machine.picture() == before
    killer = Killer(soak.randomness("killed setup"))
    for owner, name in CHANGES:
        monkeypatch.setattr(owner, name, killer.deadly(getattr(owner, name)))
    for _ in range(soak.part(CYCLES)):
        finish(machine, killer)
        machine.restart()
        finish(machine, killer, "--cluster", "One")
        assert telling(machine) == whole
        assert {one["state"] for one in machine.journal()} == {"done"}
        finish(machine, killer, "--remove")
        assert machine.journal() == []
        machine.restart()
        assert machine.picture() == before
    print(f"{soak.part(CYCLES)} cycles, killed {killer.kills} times")


def test_a_real_kill_between_the_act_and_the_journal_loses_nothing(machine: Machine) -> None:
    deadly = machine.directory / "deadly"
    deadly.write_text(
        f'#!/bin/sh\n{machine.command} "$@"\n'
        'case "$*" in *ResponseTimeout=*) kill -9 $PPID;; esac\n'
    )
    deadly.chmod(0o755)
    arguments = [
        "--config-dir",
        str(machine.directory),
        "setup",
        "--yes",
        "--engine-config",
        str(deadly),
    ]
    command = [
        sys.executable,
        "-m",
        "ovirt_tcp_plugin.admin.cli",
        *arguments,
        "--journal",
        str(machine.state),
    ]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert machine.rows["ExternalSchedulerResponseTimeout"] == {"general": "3000"}
    assert [(one["state"], one["before"]) for one in machine.journal()] == [
        ("done", "false"),
        ("intended", "120000"),
    ]
    assert machine.setup().exit_code == 0
    assert machine.setup("--remove").exit_code == 0
    assert machine.rows["ExternalSchedulerResponseTimeout"] == {"general": "120000"}


def telling(machine: Machine) -> dict[str, Any]:
    """What the engine knows, without ids and the words of the journal, which differ from time to
    time."""
    tables = machine.engine.model
    roles = {one.id: one.name for one in tables.roles.values()}
    policies = {one.id: one for one in tables.policies.values()}
    units = {one.id: one.name for one in tables.units.values()}
    return {
        "options": machine.rows,
        "policies": sorted(
            (
                one.name,
                [units[uid] for uid in (*one.filters, *one.weights, *one.balances)],
                one.properties,
            )
            for one in policies.values()
        ),
        "users": sorted(
            (one.name, sorted(roles[uid] for uid in one.roles)) for one in tables.users.values()
        ),
        "clusters": sorted(
            (one.name, policies[one.policy].name, one.properties)
            for one in tables.clusters.values()
        ),
    }
