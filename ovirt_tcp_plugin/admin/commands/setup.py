# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp setup`: prepares the engine, or undoes that."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Optional

import click

from ovirt_tcp_plugin import config, errors
from ovirt_tcp_plugin.admin.commands.printing import print_table
from ovirt_tcp_plugin.admin.setup import changes, options, phases
from ovirt_tcp_plugin.admin.setup.changes import Change, Need
from ovirt_tcp_plugin.admin.setup.cluster import UsePolicy
from ovirt_tcp_plugin.admin.setup.journal import DEFAULT_DIRECTORY, Entry, Journal, locked
from ovirt_tcp_plugin.admin.setup.leftovers import give_back, leftovers, remove_walls
from ovirt_tcp_plugin.admin.setup.phases import DesiredState
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.engine.engine_config import DEFAULT_COMMAND, EngineConfig
from ovirt_tcp_plugin.engine.engine_start import DEFAULT_MARK, RESTART, engine_start
from ovirt_tcp_plugin.engine.sdk import Access, password_of
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY, Host, Listing, is_quarantined

# Below the engine's own short interval a retry makes no sense; above its long one it is no shorter.
HA_RETRY_RANGE = click.IntRange(30, 1800)


class Setting:
    """How this run works: what the options say beside the desired state."""

    def __init__(
        self,
        config_dir: Path,
        command: Path,
        engine_up: Path,
        user: str,
        password_file: Optional[Path],
        yes: bool,
        dry_run: bool,
    ) -> None:
        self.engine_up = engine_up
        self.yes, self.dry_run = yes, dry_run
        self.changed: list[str] = []
        self.config = EngineConfig(command)
        self._config_dir, self._user, self._password_file = config_dir, user, password_file

    @functools.cached_property
    def broker(self) -> Settings:
        """The broker's configuration, which names the engine. Raises InvalidConfig."""
        return config.load(Settings, "broker", self._config_dir)

    @functools.cached_property
    def engine(self) -> AdminClient:
        """The engine, as its administrator. Raises InvalidConfig."""
        options = self.broker.engine
        reach = Access(
            options.url,
            self._user,
            self._password,
            options.ca_file,
            options.timeout_s,
            self._password_file,
        )
        return AdminClient(reach)

    @functools.cache  # noqa: B019 - one of them lives as long as the command; the password is asked for once
    def _password(self) -> str:
        if self._password_file is not None:
            return password_of(self._password_file)
        return str(click.prompt(f"Password of {self._user} at the engine", hide_input=True, err=True))


@click.command()
@click.option("--cluster", "clusters", multiple=True, metavar="NAME", help="Make this cluster a trusted pool; repeatable.")
@click.option("--policy", default=DesiredState.policy, show_default=True, help="Name of the scheduling policy to make.")
@click.option("--copy-policy", default="", help="Policy to copy; without it, the cluster's, or evenly_distributed.")
@click.option("--scope", type=click.Choice([one.value for one in Scope]), help="VMs that need trust; all_vms unless said.")
@click.option("--ha-retry", type=HA_RETRY_RANGE, metavar="SECONDS", help="Retry highly available VMs sooner than in 1800 s.")
@click.option("--user", default="admin@internal", show_default=True, help="Administrator of the engine, for phase 2.")
@click.option("--password-file", type=click.Path(path_type=Path), help="File with that password, instead of a question.")
@click.option("--remove", is_flag=True, help="Undo what the journal says, the last change first.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--engine-config", type=click.Path(path_type=Path), default=DEFAULT_COMMAND, show_default=True)
@click.option(
    "--engine-up",
    type=click.Path(path_type=Path),
    default=DEFAULT_MARK,
    show_default=True,
    help="File that the engine's service writes at each start.",
)
@click.option("--journal", type=click.Path(path_type=Path), default=DEFAULT_DIRECTORY, show_default=True, help="Directory.")
@click.pass_obj
def setup(
    config_dir: Path,
    clusters: tuple[str, ...],
    policy: str,
    copy_policy: str,
    scope: Optional[str],
    ha_retry: Optional[int],
    user: str,
    password_file: Optional[Path],
    remove: bool,
    dry_run: bool,
    yes: bool,
    engine_config: Path,
    engine_up: Path,
    journal: Path,
) -> None:
    """Prepare the engine for trusted pools; as root, on the engine machine, with broker.yaml in place.

    \b
    Phase 1: options and a VM custom property, by engine-config. It ends with the engine's restart, which is yours.
    Phase 2, when run again: a scheduling policy with the unit TrustedHosts, a role for the broker, and clusters.

    It shows what it will do and asks first. It can be stopped at any moment and run again. What somebody else changed
    since is told and left alone.
    """
    setting = Setting(config_dir, engine_config, engine_up, user, password_file, yes, dry_run)
    with locked(journal) if not dry_run else contextlib.nullcontext():
        if remove:
            _remove(setting, Journal(journal))
            return
        wished = Scope(scope) if scope else None
        _prepare(setting, Journal(journal), DesiredState(ha_retry, policy, copy_policy, wished, clusters))
    if setting.changed:
        raise errors.Conflict(f"somebody changed since setup, and it was left alone: {', '.join(setting.changed)}")


def _prepare(setting: Setting, journal: Journal, desired: DesiredState) -> None:
    shown, done = _phase("Phase 1: the engine's configuration", phases.first(setting.config, desired), journal, setting)
    if desired.ha_retry_s is None:
        seconds = setting.config.value(options.HA_RETRY)
        click.echo(f"A highly available VM that found no host ten times is tried again after {seconds} s (see --ha-retry).")
    if shown and setting.dry_run:
        click.echo("Then the engine is restarted, and phase 2 makes a scheduling policy and a role (run setup again).")
        return
    phases.check_filterd(setting.config)
    if done:
        again = "then run setup again for phase 2"
        click.echo(f"\nfilterd answers. Restart the engine now ({RESTART}), {again}.")
        return
    phases.check_start(journal, lambda: engine_start(setting.engine_up), setting.dry_run)
    phases.check_unit(setting.engine)
    named = dataclasses.replace(desired, broker_user=setting.broker.engine.username)
    if not setting.dry_run:
        phases.note_unit(setting.engine, journal)
    _phase("\nPhase 2: policy, role and clusters", phases.second(setting.engine, named), journal, setting)
    if setting.dry_run:
        return
    told = phases.left_to_do(setting.engine, named, setting.broker)
    click.echo("\nThe engine is prepared; `ovirt-tcp doctor` checks the whole." + (" Left to do:" if told else ""))
    for one in told:
        click.echo(f"- {one}")


def _phase(title: str, listed: list[Change], journal: Journal, setting: Setting) -> tuple[bool, bool]:
    """Show the acts, ask, and do them; return whether there was anything to do, and whether it was done.

    Raises Conflict when one is refused: then none is done.
    """
    steps = [changes.step(one, journal) for one in listed]
    click.echo(title)
    print_table(("WHAT", "NOW", "THEN"), [(one.act.title, one.act.show(one.now), _then(one)) for one in steps])
    for one in steps:
        if one.need is Need.CHANGED:
            click.echo(one.reason)
            setting.changed.append(one.act.title)
    refused = [one.reason for one in steps if one.need is Need.REFUSED]
    if refused:
        raise errors.Conflict("; ".join(refused))
    if not any(one.need is Need.DO for one in steps) or setting.dry_run:
        return any(one.need is Need.DO for one in steps), False
    _confirm("Do this?", setting)
    setting.config.forget()
    return True, changes.perform(listed, journal, click.echo)


def _then(one: changes.PlannedChange) -> str:
    return one.act.show(one.wanted) if one.need is Need.DO else f"({one.need.value})"


def _remove(setting: Setting, journal: Journal) -> None:
    listing = setting.engine.listing()
    quarantined = [host for host in listing.hosts if is_quarantined(host)]
    if not journal.entries and not leftovers(listing).walls and not quarantined:
        click.echo("The journal is empty: there is nothing to undo.")
        return
    subjects = {entry.subject for entry in journal.entries if entry.kind == UsePolicy.kind}
    phases.check_upgrades([one for one in listing.clusters if one.id in subjects], "setup --remove")
    ways = phases.ways_back(journal, setting.config, setting.engine)
    print_table(
        ("WHAT", "NOW", "BEFORE SETUP"),
        [(act.title, act.show(act.look(entry)), act.show(entry.before)) for act, entry in ways],
    )
    _show_leftovers(listing, quarantined)
    if setting.dry_run:
        return
    click.echo(f"VMs lose the property {MARK_PROPERTY} with its definition, once the engine was restarted.")
    _confirm("Undo this?", setting)
    kept = _take_back(setting, journal, ways)
    if kept:
        raise errors.Conflict(" ".join(kept))


def _show_leftovers(listing: Listing, quarantined: list[Host]) -> None:
    walled = sorted(cluster.name for cluster in listing.clusters if cluster.id in listing.walls)
    if walled:
        click.echo(f"Walls that go with their pools: {', '.join(walled)}.")
    for host in quarantined:
        out = f"which is out of service ({host.status_detail})"
        click.echo(f"Host {host.name}, {out}, returns to service.")


def _take_back(setting: Setting, journal: Journal, ways: list[tuple[Change, Entry]]) -> list[str]:
    """Undo everything, and return why something was not.

    The walls go before the broker's role, without which nobody would keep them, and once more in
    the end: until then a broker that has not noticed the end of a pool builds its wall again.
    """
    engine = setting.engine
    kept = _undo(ways, journal, lambda act: act.kind in phases.POLICY_KINDS)
    left = leftovers(engine.listing())
    standing = remove_walls(engine, left.walls, click.echo)
    if left.pools:
        standing.append(phases.pools_left(engine, left.pools))
    if not standing:
        setting.config.forget()
        kept += _undo(ways, journal, lambda act: act.kind not in phases.POLICY_KINDS)
        left = leftovers(engine.listing())
        standing = remove_walls(engine, left.walls, click.echo)
        memory = "it has the configuration of setup in memory"
        click.echo(f"Restart the engine now ({RESTART}): {memory}.")
    return kept + standing + give_back(engine, left.hosts, click.echo)


def _undo(
    ways: Iterable[tuple[Change, Entry]], journal: Journal, chosen: Callable[[Change], bool]
) -> list[str]:
    return changes.undo([way for way in ways if chosen(way[0])], journal, click.echo)


def _confirm(question: str, setting: Setting) -> None:
    if not setting.yes:
        click.confirm(question, abort=True)
