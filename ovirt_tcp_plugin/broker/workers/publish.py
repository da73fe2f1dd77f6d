# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Writes what others need of the state: snapshots for filterd, and the state file."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Optional

from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.placement.snapshot import Snapshot

log = logging.getLogger("broker.service")

SNAPSHOT_EVERY_MS = 1000
# So many are written in one go; one that is urgent does not wait for the others, of which there may
# be a thousand.
POOLS_IN_ONE_GO = 20
# Renewed verdicts are saved this often: one that is lost is asked for again, and no more.
SAVE_EVERY_MS = 10_000


class PublicationWorker:
    """One thread calls `step` again and again, another one `save_step`.

    A snapshot that has to show lost trust, or a VM that needs it, waits for no save: that takes a
    tenth of a second where there are ten thousand hosts. `publish` and `save` are thread-safe.

    Args:
        may_begin: whether anything is known yet that is worth writing.
        all_known: whether the VMs' marks are known.
    """

    def __init__(
        self,
        state: BrokerState,
        writer: SnapshotWriter,
        state_file: StateFile,
        metrics: Metrics,
        clock: Clock,
        may_begin: Callable[[], bool],
        all_known: Callable[[], bool],
    ) -> None:
        self._state = state
        self._changes = state.changes
        self._writer = writer
        self._state_file = state_file
        self._metrics = metrics
        self._clock = clock
        self._may_begin = may_begin
        self._all_known = all_known
        # One thread writes at a time: an older snapshot must not replace a newer one. The state's
        # lock is taken inside of this one.
        self._publishing = threading.Lock()
        self._written_ms: dict[str, int] = {}
        # Ids of the pools whose snapshots could not be written when that was last tried.
        self._failing: set[str] = set()
        self._saved_revision = -1
        self._saved_ms = 0

    def step(self) -> None:
        """Write what changed: a pool at most once a second.

        At once where a host lost trust, or a VM needs trust that needed none.
        """
        if not self._may_begin():
            return
        old = self._changes.old_snapshots()[0]
        urgent = self._urgent()
        self._write_in_portions(urgent)
        if not self._all_known():
            # A file of an earlier run knows the VMs' marks: it goes on, but for lost trust.
            old = self._writer.without_file(old)
        self._publish_calm(old - urgent)

    def save_step(self) -> None:
        """Save the state: every ten seconds, and at once when a host lost trust."""
        if self._may_begin() and self._is_save_due(self._clock.now_ms()):
            self.save()

    def publish(self, pool_ids: Optional[Collection[str]] = None) -> None:
        """Write the snapshots of these pools, None for all that are old.

        One that fails keeps no other back, and is tried again.
        """
        chosen = self._changes.old_snapshots()[0] if pool_ids is None else pool_ids
        self._write_in_portions(chosen)

    def forget(self, pool_id: str) -> None:
        """Remove the snapshot of a pool that ended. Raises OSError."""
        with self._publishing:
            self._writer.remove(pool_id)

    def save(self) -> None:
        """Save the state. Without room on the disk, the broker goes on by what it knows now."""
        self._saved_revision = self._changes.revision()
        self._saved_ms = self._clock.now_ms()
        try:
            self._state_file.save(self._state)
        except OSError as e:
            log.error("state not saved error=%s", e)

    def _urgent(self) -> frozenset[str]:
        """Return the pools whose snapshots are to be written at once."""
        if self._all_known():
            return self._changes.urgent_snapshots()
        return self._changes.old_snapshots()[1]

    def _publish_calm(self, pool_ids: Iterable[str]) -> None:
        """Write snapshots of pools as long as nothing urgent comes; the others are still old."""
        now_ms = self._clock.now_ms()
        calm = [pool_id for pool_id in pool_ids if self._is_calm(pool_id, now_ms)]
        for portion in _portions(calm):
            if self._urgent():
                return
            self._write_all(portion)

    def _write_in_portions(self, pool_ids: Iterable[str]) -> None:
        for portion in _portions(list(pool_ids)):
            self._write_all(portion)

    def _write_all(self, pool_ids: Sequence[str]) -> None:
        with self._publishing:
            all_known = self._all_known()
            urgent = self._changes.written(pool_ids)
            for snapshot in self._state.snapshots(pool_ids):
                pool_id = snapshot.pool_id
                self._written_ms[pool_id] = self._clock.now_ms()
                is_written = self._write(snapshot, all_known)
                if not is_written:
                    self._changes.not_written(pool_id, pool_id in urgent)
                elif not all_known:
                    self._changes.not_written(pool_id, urgent=False)
            try:
                self._writer.confirm()
            except OSError as e:
                log.error("snapshots not confirmed error=%s", e)

    def _is_calm(self, pool_id: str, now_ms: int) -> bool:
        """Return whether a pool's snapshot was not written within the last second."""
        return now_ms - self._written_ms.get(pool_id, 0) >= SNAPSHOT_EVERY_MS

    def _is_save_due(self, now_ms: int) -> bool:
        if self._saved_revision == self._changes.revision():
            return False
        # At once: a host that lost trust may not have it again because we were killed.
        is_trust_lost = self._changes.trust_lost_revision() > self._saved_revision
        return is_trust_lost or now_ms - self._saved_ms >= SAVE_EVERY_MS

    def _write(self, snapshot: Snapshot, all_known: bool) -> bool:
        """Write a snapshot unless its file says the same; return whether it is up to date now.

        Args:
            all_known: whether it knows the VMs; else those of an earlier run's file are kept.
        """
        pool_id = snapshot.pool_id
        try:
            if not all_known:
                earlier = self._writer.earlier(pool_id, snapshot.boot_id)
                snapshot = snapshot.with_vms_of(earlier) if earlier else snapshot
            is_new = self._writer.write(snapshot)
        except OSError as e:
            # An urgent one is tried again all the time, and said once.
            if pool_id not in self._failing:
                log.error("snapshot not written pool=%s error=%s", pool_id, e)
            self._failing.add(pool_id)
            self._metrics.snapshot(written=False)
            return False
        self._failing.discard(pool_id)
        if is_new:
            self._metrics.snapshot(written=True)
        return True


def _portions(pool_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(pool_ids), POOLS_IN_ONE_GO):
        yield pool_ids[start : start + POOLS_IN_ONE_GO]
