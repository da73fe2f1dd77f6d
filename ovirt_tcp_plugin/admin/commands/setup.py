# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp setup`: prepares the engine, or undoes that."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import click

from ovirt_tcp_plugin.admin.commands import options
from ovirt_tcp_plugin.admin.setup.desired_state import DEFAULT_POLICY, DesiredState
from ovirt_tcp_plugin.admin.setup.journal import DEFAULT_DIRECTORY
from ovirt_tcp_plugin.placement.decision import Scope

# Below the engine's own short interval a retry changes nothing; above its long one it is later.
HA_RETRY_RANGE = click.IntRange(30, 1800)
SCOPES = click.Choice([scope.value for scope in Scope])


@click.command()
@click.option(
    "--cluster",
    "clusters",
    multiple=True,
    metavar="NAME",
    help="Make this cluster a trusted pool; repeatable.",
)
@click.option(
    "--policy",
    default=DEFAULT_POLICY,
    show_default=True,
    help="Name of the scheduling policy to make.",
)
@click.option(
    "--copy-policy",
    default="",
    help="Scheduling policy to copy; default: that of the cluster, or evenly_distributed.",
)
@click.option("--scope", type=SCOPES, help="VMs that need trust; default: all_vms.")
@click.option(
    "--ha-retry",
    type=HA_RETRY_RANGE,
    metavar="SECONDS",
    help="Retry highly available VMs sooner than after 1800 s.",
)
@click.option(
    "--user",
    default="admin@internal",
    show_default=True,
    help="Administrator of the engine, for phase 2.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="File with the administrator's password; without it, setup asks for the password.",
)
@click.option("--remove", is_flag=True, help="Undo what the journal lists, the last change first.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@options.engine_config
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Directory of the journal of changes.",
)
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
    """Prepare the engine for trusted pools.

    Run it as root, on the engine machine, with broker.yaml in place.

    \b
    Phase 1: options and a VM custom property, by engine-config. Then you restart the engine.
    Phase 2, when run again: a scheduling policy with the unit TrustedHosts, a role for the
    broker, and clusters.

    It shows what it will do and asks before it does it. You can stop it at any moment and run it
    again. What somebody else has changed since is reported and left alone.
    """
    # Only here: no help text needs the oVirt SDK, which takes long to load.
    from ovirt_tcp_plugin.admin.setup.session import SetupSession

    session = SetupSession(config_dir, engine_config, user, password_file, yes, dry_run)
    if remove:
        session.remove(journal)
        return
    chosen_scope = Scope(scope) if scope else None
    session.prepare(journal, DesiredState(ha_retry, policy, copy_policy, chosen_scope, clusters))
