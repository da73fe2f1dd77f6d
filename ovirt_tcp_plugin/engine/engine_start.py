# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When the engine on this machine started. Its options, and filterd, it reads only then.

The engine itself writes no event of its start: event 1 (VDC_START) comes from
ovirt-engine-notifier, a service of its own that is not enabled as installed, and minutes later.
What is there at every start is the start file (`ENGINE_UP_MARK`, /var/lib/ovirt-engine/engine.up),
which the service writes before its Java machine and removes when it ends in order
(`ovirt-engine.py`, `daemonContext`), and systemd. The path is the broker's option
`engine.start_file`.
"""

from __future__ import annotations

import datetime
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin import errors

START = "systemctl start ovirt-engine"
RESTART = "systemctl restart ovirt-engine"
SYSTEMCTL = (
    "systemctl",
    "show",
    "ovirt-engine",
    "--property=LoadState,ActiveState,ExecMainStartTimestampMonotonic",
)
# systemd answers from memory; one that does not answer is stuck.
ANSWER_WITHIN_S = 10.0
_NOT_RUNNING = frozenset({"inactive", "failed", "deactivating"})
_MICROSECONDS = 1_000_000


def started_at(start_file: Path) -> Optional[datetime.datetime]:
    """Return when the engine's service wrote its start file; None where it cannot be seen.

    That is so on other machines, and while the engine does not run.
    """
    try:
        return _written(start_file)
    except OSError:
        return None


def engine_start(start_file: Path, systemctl: Sequence[str] = SYSTEMCTL) -> datetime.datetime:
    """Return when the engine started, by the clock of this machine.

    Args:
        systemctl: the command that is asked when there is no start file.

    Raises:
        Conflict: the engine does not run, or nothing here tells when it started; with what to do.
    """
    try:
        return _written(start_file)
    except FileNotFoundError:
        return _by_systemd(start_file, systemctl)
    except OSError as e:
        where = "run setup as root, on the engine machine"
        raise errors.Conflict(f"{start_file} cannot be read ({e.strerror}): {where}") from e


def _written(start_file: Path) -> datetime.datetime:
    modified = start_file.stat().st_mtime
    return datetime.datetime.fromtimestamp(modified, datetime.timezone.utc)


def _by_systemd(start_file: Path, systemctl: Sequence[str]) -> datetime.datetime:
    """Return when the engine's service started, by systemd. Raises Conflict."""
    try:
        properties = _service_properties(systemctl)
    except (OSError, subprocess.SubprocessError) as e:
        raise _unknown(start_file, f" ({_reason(e)})") from e
    loaded = properties.get("LoadState") == "loaded"
    if loaded and properties.get("ActiveState") in _NOT_RUNNING:
        raise errors.Conflict(f"the engine does not run: {START}, then run setup again")
    started_us = properties.get("ExecMainStartTimestampMonotonic", "0")
    if not loaded or not started_us.isdigit() or started_us == "0":
        raise _unknown(start_file)
    # By the clock that nobody sets; the time of day that systemd noted may be of before a
    # correction.
    age_s = time.clock_gettime(time.CLOCK_MONOTONIC) - int(started_us) / _MICROSECONDS
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age_s)


def _service_properties(systemctl: Sequence[str]) -> Mapping[str, str]:
    """Return what systemd says of the service. Raises OSError or SubprocessError."""
    shown = subprocess.run(
        systemctl,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=ANSWER_WITHIN_S,
        check=True,
    )
    lines = shown.stdout.decode("utf-8", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _unknown(start_file: Path, detail: str = "") -> errors.Conflict:
    what = f"it cannot be told when the engine started: there is no file {start_file}"
    step = "run setup on the engine machine, or set engine.start_file in broker.yaml to that file"
    return errors.Conflict(f"{what}, and systemctl does not know it{detail}: {step}")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        complaint = (error.stderr or b"").decode("utf-8", "replace")
        return " ".join(complaint.split())[:300] or f"exit code {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {ANSWER_WITHIN_S:.0f} s"
    return str(error)
