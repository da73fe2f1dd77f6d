# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When the engine on this machine started. Its options, and filterd, it reads only then.

The engine itself writes no event of its start: event 1 (VDC_START) comes from
ovirt-engine-notifier, a service of its own that is not enabled as installed, and minutes later.
What is there at every start is the file `ENGINE_UP_MARK`, which the service writes before its Java
machine and removes when it ends in order (`ovirt-engine.py`, `daemonContext`), and systemd.
"""

from __future__ import annotations

import datetime
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ovirt_tcp_plugin import errors

DEFAULT_MARK = Path("/var/lib/ovirt-engine/engine.up")
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


def engine_start(
    mark: Path = DEFAULT_MARK, systemctl: Sequence[str] = SYSTEMCTL
) -> datetime.datetime:
    """Return when the engine started, by the clock of this machine.

    Args:
        mark: the file that the engine's service writes at each start.
        systemctl: the command that is asked when there is no such file.

    Raises:
        Conflict: the engine does not run, or nothing here tells when it started; with what to do.
    """
    try:
        status = mark.stat()
    except FileNotFoundError:
        return _by_systemd(mark, systemctl)
    except OSError as e:
        where = "run setup as root, on the engine machine"
        raise errors.Conflict(f"{mark} cannot be read ({e.strerror}): {where}") from e
    return datetime.datetime.fromtimestamp(status.st_mtime, datetime.timezone.utc)


def _by_systemd(mark: Path, systemctl: Sequence[str]) -> datetime.datetime:
    unknown = f"it cannot be told when the engine started: there is no file {mark}"
    where = "run setup on the engine machine, or name that file by --engine-up"
    try:
        answer = subprocess.run(
            systemctl,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_WITHIN_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as e:
        why = f"systemctl does not know it ({_reason(e)})"
        raise errors.Conflict(f"{unknown}, and {why}: {where}") from e
    lines = answer.stdout.decode("utf-8", "replace").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    started_us = values.get("ExecMainStartTimestampMonotonic", "0")
    if values.get("LoadState") == "loaded" and values.get("ActiveState") in _NOT_RUNNING:
        raise errors.Conflict(f"the engine does not run: {START}, then run setup again")
    if values.get("LoadState") != "loaded" or not started_us.isdigit() or started_us == "0":
        raise errors.Conflict(f"{unknown}, and systemctl does not know it: {where}")
    # By the clock that nobody sets; the time of day that systemd noted may be of before a
    # correction.
    age_s = time.clock_gettime(time.CLOCK_MONOTONIC) - int(started_us) / _MICROSECONDS
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age_s)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        complaint = (error.stderr or b"").decode("utf-8", "replace")
        return " ".join(complaint.split())[:300] or f"exit code {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {ANSWER_WITHIN_S:.0f} s"
    return str(error)
