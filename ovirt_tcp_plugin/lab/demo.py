# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp demo`: plays the story on a site of its own, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Optional

import click

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.lab import site as sites
from ovirt_tcp_plugin.lab import story
from ovirt_tcp_plugin.lab.narrator import Narrator, StepFailed
from ovirt_tcp_plugin.lab.site import LabSite, StageSizes
from ovirt_tcp_plugin.lab.story.scene import Scene

# Short, so that one can watch verdicts end; long enough for this many hosts to be asked twice
# meanwhile.
LIFETIME_S = 8.0
LIFETIME_PER_HOST_S = 0.2

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_TRY = """
Everything stays up until Ctrl-C. Try in another terminal:

  ovirt-tcp --config-dir {config} hosts
  ovirt-tcp --config-dir {config} explain host-4.lab
  ovirt-tcp --config-dir {config} verdicts
  ovirt-tcp --config-dir {config} why web host-4
  ovirt-tcp --config-dir {config} doctor

  engine   {engine}   (user {user}, password: {password})
  verifier {verifier}
  logs     {logs}
"""


def play(hosts: int, keep: bool, as_json: bool) -> bool:
    """Play the story with that many hosts; return whether every step held."""
    narrator = Narrator(quiet=as_json)
    lifetime_s = LIFETIME_S + LIFETIME_PER_HOST_S * hosts
    # Ctrl-C, too: a shell that starts this in the background has it ignored.
    handlers_before = {number: signal.signal(number, _interrupting(narrator)) for number in _ENDING}
    failure = ""
    try:
        with (
            sites.temporary_directory() as directory,
            LabSite(directory, hosts, lifetime_s, _stages(hosts)) as site,
        ):
            failure = _play(site, narrator)
            if not as_json:
                click.echo("\n" + narrator.table())
            if keep and not failure:
                _keep(site, narrator)
    except KeyboardInterrupt:
        failure = failure or "interrupted"
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
    _print_outcome(narrator, failure, as_json)
    return not failure


def _print_outcome(narrator: Narrator, failure: str, as_json: bool) -> None:
    if as_json:
        outcome = {"held": not failure, "failure": failure, "steps": narrator.as_json()}
        click.echo(json.dumps(outcome, indent=2))
    elif failure:
        click.echo(f"\nThe story did not hold. {failure}", err=True)


def _stages(hosts: int) -> StageSizes:
    """Return stages of which there are at least two."""
    if hosts > 10:
        return StageSizes(first=10, later=20)
    return StageSizes(first=max(hosts // 3, 1), later=hosts)


def _play(site: LabSite, narrator: Narrator) -> str:
    """Return why a step did not hold, empty if all did."""
    try:
        story.play(Scene(site, narrator))
    except (StepFailed, errors.Error) as e:
        return str(e)
    return ""


def _keep(site: LabSite, narrator: Narrator) -> None:
    click.echo(
        _TRY.format(
            config=site.config,
            engine=site.engine_url,
            user=sites.ADMINISTRATOR,
            password=sites.PASSWORD,
            verifier=site.verifier_url,
            logs=site.directory / "log",
        )
    )
    while not narrator.interrupted:
        time.sleep(0.5)


def _interrupting(narrator: Narrator) -> Callable[[int, Optional[FrameType]], None]:
    """Return a handler that ends the story, once.

    A second Ctrl-C would end the cleaning up instead.
    """

    def interrupt(_number: int, _frame: Optional[FrameType]) -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        narrator.interrupted = True
        raise KeyboardInterrupt

    return interrupt
