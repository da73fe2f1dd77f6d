# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One run of setup at a terminal: it shows what is to be done, asks, and does it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Optional

import click

from ovirt_tcp_plugin import config, errors, secret_files
from ovirt_tcp_plugin.admin.commands.printing import print_table
from ovirt_tcp_plugin.admin.setup import changes, options, phases
from ovirt_tcp_plugin.admin.setup.changes import Change, Need, PlannedChange
from ovirt_tcp_plugin.admin.setup.cluster import UsePolicy
from ovirt_tcp_plugin.admin.setup.desired_state import DesiredState
from ovirt_tcp_plugin.admin.setup.journal import Entry, Journal, locked
from ovirt_tcp_plugin.admin.setup.leftovers import give_back, leftovers, remove_walls
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from ovirt_tcp_plugin.engine.engine_start import RESTART, engine_start
from ovirt_tcp_plugin.engine.sdk import Access, password_of
from ovirt_tcp_plugin.placement.inventory import (
    MARK_PROPERTY,
    Cluster,
    Host,
    Listing,
    is_quarantined,
)


@dataclasses.dataclass(frozen=True)
class PhaseOutcome:
    """What became of a phase.

    Attributes:
        due: whether there was anything to do.
        performed: whether anything was done.
    """

    due: bool
    performed: bool


class SetupSession:
    """One run.

    Args:
        command: the engine's `engine-config`.
        user: administrator of the engine.
        password_file: file with the administrator's password; None to ask for it.
        yes: whether to do without a confirmation.
        dry_run: whether to show only, and change nothing.
    """

    def __init__(
        self,
        config_dir: Path,
        command: Path,
        user: str,
        password_file: Optional[Path],
        yes: bool,
        dry_run: bool,
    ) -> None:
        self._config_dir = config_dir
        self._config = EngineConfig(command)
        self._user = user
        self._password_file = password_file
        self._yes = yes
        self._dry_run = dry_run
        # Titles of what somebody has changed since setup.
        self._changed: list[str] = []

    def prepare(self, journal_directory: Path, desired: DesiredState) -> None:
        """Do what there is to do of phase 1, or of phase 2 when that is done.

        Raises:
            Conflict: it cannot go on, or somebody has changed since what setup did; with what to
                do.
            InvalidConfig: broker.yaml or the journal cannot be used.
            Unavailable, NotFound: the engine does not answer, or does not have such a cluster.
        """
        with self._lock(journal_directory):
            self._prepare(Journal(journal_directory), desired)
        if self._changed:
            titles = ", ".join(self._changed)
            raise errors.Conflict(f"somebody changed since setup, and it was left alone: {titles}")

    def remove(self, journal_directory: Path) -> None:
        """Undo what the journal lists, and remove what the broker left; raises as `prepare`."""
        with self._lock(journal_directory):
            self._remove(Journal(journal_directory))

    def _lock(self, directory: Path) -> AbstractContextManager[None]:
        if self._dry_run:
            return contextlib.nullcontext()
        return locked(directory)

    @functools.cached_property
    def _broker(self) -> Settings:
        """The broker's configuration, which names the engine. Raises InvalidConfig."""
        return config.load(Settings, "broker", self._config_dir)

    @functools.cached_property
    def _engine(self) -> AdminClient:
        """The engine, as its administrator. Raises InvalidConfig."""
        engine = self._broker.engine
        access = Access(
            engine.url,
            self._user,
            self._password,
            engine.ca_file,
            engine.timeout_s,
            self._password_file,
        )
        return AdminClient(access)

    # One session lives as long as the command; so the password is asked for once.
    @functools.cache  # noqa: B019
    def _password(self) -> str:
        if self._password_file is not None:
            secret_files.warn_if_open(self._password_file)
            return password_of(self._password_file)
        question = f"Password of {self._user} at the engine"
        return str(click.prompt(question, hide_input=True, err=True))

    def _prepare(self, journal: Journal, desired: DesiredState) -> None:
        title = "Phase 1: the engine's configuration"
        outcome = self._phase(title, phases.first(self._config, desired), journal)
        if desired.ha_retry_s is None:
            seconds = self._config.value(options.HA_RETRY)
            retry = "A highly available VM that found no host ten times is tried again after"
            click.echo(f"{retry} {seconds} s (see --ha-retry).")
        if outcome.due and self._dry_run:
            click.echo(
                "Then the engine is restarted, and phase 2 makes a scheduling policy and a role"
                " (run setup again)."
            )
            return
        phases.check_filterd(self._config)
        if outcome.performed:
            then = "then run setup again for phase 2"
            click.echo(f"\nfilterd answers. Restart the engine now ({RESTART}), {then}.")
            return
        start_file = self._broker.engine.start_file
        phases.check_start(journal, lambda: engine_start(start_file), self._dry_run)
        phases.check_unit(self._engine)
        if not self._dry_run:
            phases.note_unit(self._engine, journal)
        desired = dataclasses.replace(desired, broker_user=self._broker.engine.username)
        second = phases.second(self._engine, desired, self._broker.pools.exempt_vms)
        self._phase("\nPhase 2: policy, role and clusters", second, journal)
        if not self._dry_run:
            self._show_left_to_do(desired)

    def _show_left_to_do(self, desired: DesiredState) -> None:
        tasks = phases.left_to_do(self._engine, desired, self._broker)
        summary = "\nThe engine is prepared; `ovirt-tcp doctor` checks the whole."
        if tasks:
            summary += " Left to do:"
        click.echo(summary)
        for task in tasks:
            click.echo(f"- {task}")

    def _phase(self, title: str, listed: list[Change], journal: Journal) -> PhaseOutcome:
        """Show changes, ask, and make them. Raises Conflict: one is refused, so none is made."""
        plan = [changes.plan(change, journal) for change in listed]
        click.echo(title)
        print_table(("WHAT", "NOW", "THEN"), [_row(planned) for planned in plan])
        for planned in plan:
            if planned.need is Need.CHANGED:
                click.echo(planned.reason)
                self._changed.append(planned.change.title)
        refusals = [planned.reason for planned in plan if planned.need is Need.REFUSED]
        if refusals:
            raise errors.Conflict("; ".join(refusals))
        due = any(planned.need is Need.DO for planned in plan)
        if not due or self._dry_run:
            return PhaseOutcome(due, performed=False)
        self._confirm("Do this?")
        self._config.forget()
        performed = changes.perform(listed, journal, click.echo)
        return PhaseOutcome(due, performed)

    def _remove(self, journal: Journal) -> None:
        listing = self._engine.listing()
        quarantined = [host for host in listing.hosts if is_quarantined(host)]
        if not journal.entries and not leftovers(listing).walls and not quarantined:
            click.echo("The journal is empty: there is nothing to undo.")
            return
        subjects = {entry.subject for entry in journal.entries if entry.kind == UsePolicy.kind}
        clusters = [cluster for cluster in listing.clusters if cluster.id in subjects]
        phases.check_upgrades(clusters, "setup --remove")
        ways = phases.ways_back(journal, self._config, self._engine)
        rows = [_row_of_way_back(change, entry) for change, entry in ways]
        print_table(("WHAT", "NOW", "BEFORE SETUP"), rows)
        _show_leftovers(listing, quarantined)
        if self._dry_run:
            return
        click.echo(
            f"VMs lose the property {MARK_PROPERTY} when the engine is restarted without its"
            " definition."
        )
        self._confirm("Undo this?")
        kept = self._take_back(journal, ways)
        if kept:
            raise errors.Conflict(" ".join(kept))

    def _take_back(self, journal: Journal, ways: Sequence[tuple[Change, Entry]]) -> list[str]:
        """Undo everything, and return why something was not.

        The walls go before the broker's role, without which nobody would keep them, and once more
        in the end: until then a broker that has not noticed the end of a pool builds its wall
        again.
        """
        engine = self._engine
        of_policies = [way for way in ways if way[0].kind in phases.POLICY_KINDS]
        others = [way for way in ways if way[0].kind not in phases.POLICY_KINDS]
        kept = changes.undo(of_policies, journal, click.echo)
        left = leftovers(engine.listing())
        # Before the walls go, which a broker that runs would build again.
        self._end_pools(left.others)
        standing = remove_walls(engine, left.walls, click.echo)
        if left.pools:
            standing.append(phases.pools_left(engine, left.pools))
        if not standing:
            self._config.forget()
            kept += changes.undo(others, journal, click.echo)
            left = leftovers(engine.listing())
            standing = remove_walls(engine, left.walls, click.echo)
            memory = "it has the configuration of setup in memory"
            click.echo(f"Restart the engine now ({RESTART}): {memory}.")
        return kept + standing + give_back(engine, left.hosts, click.echo)

    def _end_pools(self, clusters: Sequence[Cluster]) -> None:
        """Have the broker end the pools of these clusters. Raises Unavailable."""
        directory = self._broker.state.directory
        try:
            EndRequests(directory).add(cluster.id for cluster in clusters)
        except OSError as e:
            reason = f"the ends of pools cannot be written there: {e}"
            raise errors.Unavailable(str(directory), reason) from e

    def _confirm(self, question: str) -> None:
        if not self._yes:
            click.confirm(question, abort=True)


def _row(planned: PlannedChange) -> tuple[str, str, str]:
    change = planned.change
    then = f"({planned.need.value})"
    if planned.need is Need.DO:
        then = change.show(planned.desired)
    return change.title, change.show(planned.now), then


def _row_of_way_back(change: Change, entry: Entry) -> tuple[str, str, str]:
    now = change.look(entry)
    return change.title, change.show(now), change.show(entry.before)


def _show_leftovers(listing: Listing, quarantined: list[Host]) -> None:
    walled = sorted(cluster.name for cluster in listing.clusters if cluster.id in listing.walls)
    if walled:
        click.echo(f"Walls that are removed with their pools: {', '.join(walled)}.")
    for host in quarantined:
        state = f"which is out of service ({host.status_detail})"
        click.echo(f"Host {host.name}, {state}, returns to service.")
