# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a pool with one host of each kind."""

from __future__ import annotations

import uuid

from ovirt_tcp_plugin.clock import BOOT_ID
from ovirt_tcp_plugin.clock import boottime_ms as now_ms
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope, Verdict
from ovirt_tcp_plugin.placement.snapshot import Snapshot

GOOD, BAD, ENDED, UNBORN, SILENT = (str(uuid.UUID(int=number)) for number in range(1, 6))
MARKED, PLAIN, EXEMPT, NEW = (str(uuid.UUID(int=number)) for number in range(11, 15))
POOL = str(uuid.UUID(int=100))
OTHER_POOL = str(uuid.UUID(int=101))
HOUR_MS = 3_600_000


def running_boot() -> str:
    return BOOT_ID.read_text().strip()


def pool(
    scope: Scope = Scope.ALL_VMS, pool_id: str = POOL, written_ms: int | None = None
) -> Snapshot:
    """Return a pool with a host of each kind, good for an hour from now."""
    now = now_ms()
    hosts = {
        GOOD: Verdict(Level.TRUSTED, now - 1000, now + HOUR_MS),
        BAD: Verdict(
            Level.UNTRUSTED, now - 1000, now + HOUR_MS, "no_launch", "no measured launch took place"
        ),
        ENDED: Verdict(Level.TRUSTED, now - HOUR_MS, now - 5000),
        UNBORN: Verdict(Level.TRUSTED, now + HOUR_MS, now + 2 * HOUR_MS),
        SILENT: Verdict(Level.TIMEOUT, now, now, "no_answer", "the host's agent did not answer"),
    }
    written = now if written_ms is None else written_ms
    return Snapshot(
        pool_id,
        scope,
        running_boot(),
        written,
        hosts,
        {MARKED: True, PLAIN: False},
        frozenset({EXEMPT}),
    )
