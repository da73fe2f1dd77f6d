# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp setup`: prepares the engine, or undoes that."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

import click

from ovirt_tcp_plugin import config, errors
from ovirt_tcp_plugin.broker.administration import Administration
from ovirt_tcp_plugin.broker.decision import Scope
from ovirt_tcp_plugin.broker.inventory import MARK_PROPERTY
from ovirt_tcp_plugin.broker.sdk import Access, password_of
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.setup import acts, options, phases
from ovirt_tcp_plugin.broker.setup.acts import Act, Need
from ovirt_tcp_plugin.broker.setup.engine_config import DEFAULT_COMMAND, EngineConfig
from ovirt_tcp_plugin.broker.setup.journal import DEFAULT_DIRECTORY, Entry, Journal, locked
from ovirt_tcp_plugin.broker.setup.phases import Wishes
from ovirt_tcp_plugin.commands.printing import print_table

# Below the engine's own short interval a retry makes no sense; above its long one it is no shorter.
HA_RETRY_RANGE = click.IntRange(30, 1800)


class Setting:
    """How this run works: what the options said that are no wishes."""

    def __init__(
        self, config_dir: Path, command: Path, user: str, password_file: Optional[Path], yes: bool, dry_run: bool
    ) -> None:
        self.yes, self.dry_run = yes, dry_run
        self.changed: list[str] = []
        self.config = EngineConfig(command)
        self._config_dir, self._user, self._password_file = config_dir, user, password_file

    @functools.cached_property
    def broker(self) -> Settings:
        """The broker's configuration, which names the engine. Raises InvalidConfig."""
        return config.load(Settings, "broker", self._config_dir)

    @functools.cached_property
    def engine(self) -> Administration:
        """The engine, as its administrator. Raises InvalidConfig."""
        options = self.broker.engine
        return Administration(Access(options.url, self._user, self._password, options.ca_file, options.timeout_s))

    @functools.cache  # noqa: B019 - one of them lives as long as the command; the password is asked for once
    def _password(self) -> str:
        if self._password_file is not None:
            return password_of(self._password_file)
        return str(click.prompt(f"Password of {self._user} at the engine", hide_input=True, err=True))


@click.command()
@click.option("--cluster", "clusters", multiple=True, metavar="NAME", help="Make this cluster a trusted pool; repeatable.")
@click.option("--policy", default=Wishes.policy, show_default=True, help="Name of the scheduling policy to make.")
@click.option("--copy-policy", default="", help="Policy to copy; without it, the cluster's, or evenly_distributed.")
@click.option("--scope", type=click.Choice([one.value for one in Scope]), help="VMs that need trust; all_vms unless said.")
@click.option("--ha-retry", type=HA_RETRY_RANGE, metavar="SECONDS", help="Retry highly available VMs sooner than in 1800 s.")
@click.option("--user", default="admin@internal", show_default=True, help="Administrator of the engine, for phase 2.")
@click.option("--password-file", type=click.Path(path_type=Path), help="File with that password, instead of a question.")
@click.option("--remove", is_flag=True, help="Undo what the journal says, the last change first.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--engine-config", type=click.Path(path_type=Path), default=DEFAULT_COMMAND, show_default=True)
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
    journal: Path,
) -> None:
    """Prepare the engine for trusted pools; as root, on the engine machine, with broker.yaml in place.

    \b
    Phase 1: options and a VM custom property, by engine-config. It ends with the engine's restart, which is yours.
    Phase 2, when run again: a scheduling policy with the unit TrustedHosts, a role for the broker, and clusters.

    It shows what it will do and asks first. It can be stopped at any moment and run again. What somebody else changed
    since is told and left alone.
    """
    setting = Setting(config_dir, engine_config, user, password_file, yes, dry_run)
    with locked(journal) if not dry_run else contextlib.nullcontext():
        if remove:
            _remove(setting, Journal(journal))
            return
        wished = Scope(scope) if scope else None
        _prepare(setting, Journal(journal), Wishes(ha_retry, policy, copy_policy, wished, clusters))
    if setting.changed:
        raise errors.Conflict(f"somebody changed since setup, and it was left alone: {', '.join(setting.changed)}")


def _prepare(setting: Setting, journal: Journal, wishes: Wishes) -> None:
    shown, done = _phase("Phase 1: the engine's configuration", phases.first(setting.config, wishes), journal, setting)
    if wishes.ha_retry_s is None:
        seconds = setting.config.value(options.HA_RETRY)
        click.echo(f"A highly available VM that found no host ten times is tried again after {seconds} s (see --ha-retry).")
    if shown and setting.dry_run:
        click.echo("Then the engine is restarted, and phase 2 makes a scheduling policy and a role (run setup again).")
        return
    phases.check_filterd(setting.config)
    if done:
        click.echo(f"\nfilterd answers. Restart the engine now ({phases.RESTART}), then run setup again for phase 2.")
        return
    phases.check_engine(setting.engine, journal)
    named = dataclasses.replace(wishes, broker_user=setting.broker.engine.username)
    if not setting.dry_run:
        phases.note_unit(setting.engine, journal)
    _phase("\nPhase 2: policy, role and clusters", phases.second(setting.engine, named), journal, setting)
    if setting.dry_run:
        return
    told = phases.left_to_do(setting.engine, named, setting.broker)
    click.echo("\nThe engine is prepared; `ovirt-tcp doctor` checks the whole." + (" Left to do:" if told else ""))
    for one in told:
        click.echo(f"- {one}")


def _phase(title: str, listed: list[Act], journal: Journal, setting: Setting) -> tuple[bool, bool]:
    """Show the acts, ask, and do them; return whether there was anything to do, and whether it was done.

    Raises Conflict when one is refused: then none is done.
    """
    steps = [acts.step(one, journal) for one in listed]
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
    return True, acts.perform(listed, journal, click.echo)


def _then(one: acts.Step) -> str:
    return one.act.show(one.wanted) if one.need is Need.DO else f"({one.need.value})"


def _remove(setting: Setting, journal: Journal) -> None:
    if not journal.entries:
        click.echo("The journal is empty: there is nothing to undo.")
        return
    ways = phases.ways_back(journal, setting.config, setting.engine)
    print_table(
        ("WHAT", "NOW", "BEFORE SETUP"),
        [(one.title, one.show(one.look(entry)), one.show(entry.before)) for one, entry in ways],
    )
    if setting.dry_run:
        return
    click.echo(f"VMs lose the property {MARK_PROPERTY} with its definition, once the engine was restarted.")
    _confirm("Undo this?", setting)
    kept = _undo(ways, journal, rest=True)
    pools = phases.pools_left(setting.engine)
    if pools:
        kept.append(pools)
    else:
        setting.config.forget()
        kept += _undo(ways, journal, rest=False)
        click.echo(f"Restart the engine now ({phases.RESTART}): it has the configuration of setup in memory.")
    if kept:
        raise errors.Conflict(" ".join(kept))


def _undo(ways: Iterable[tuple[Act, Entry]], journal: Journal, rest: bool) -> list[str]:
    return acts.undo([one for one in ways if phases.by_rest(one[0]) is rest], journal, click.echo)


def _confirm(question: str, setting: Setting) -> None:
    if not setting.yes:
        click.confirm(question, abort=True)
