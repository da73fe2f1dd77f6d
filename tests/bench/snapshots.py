# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a broker does beside filterd while it sweeps a large pool: work on verdicts, and a new
snapshot each second.

python -m tests.bench.snapshots DIRECTORY POOL HOSTS
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path

from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.clock import BOOT_ID, boottime_ms
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope, Verdict
from ovirt_tcp_plugin.placement.snapshot import Snapshot

HOUR_MS = 3_600_000
VMS = 20_000
# Names in one question to an attestation server, and questions that are answered in a second.
BATCH = 20
PER_SECOND = 300


def host_ids(count: int) -> list[str]:
    """Return ids as the engine writes them, always the same."""
    return [str(uuid.UUID(int=(0x5EED << 112) + number)) for number in range(1, count + 1)]


def pool(pool_id: str, hosts: int) -> Snapshot:
    """Return a pool of trusted hosts, each with an end of its own."""
    now = boottime_ms()
    verdicts = {
        one: Verdict(Level.TRUSTED, now - n, now + HOUR_MS + n)
        for n, one in enumerate(host_ids(hosts))
    }
    vms = {str(uuid.UUID(int=number)): False for number in range(VMS)}
    boot_id = BOOT_ID.read_text(encoding="ascii").strip()
    return Snapshot(pool_id, Scope.ALL_VMS, boot_id, now, verdicts, vms, frozenset())


def sweep(directory: Path, pool_id: str, hosts: int) -> None:
    """Write and work until killed."""
    writer, began = SnapshotWriter(directory), time.monotonic()
    for second in range(1_000_000):
        writer.write(pool(pool_id, hosts))
        for number in range(PER_SECOND):
            names = host_ids(BATCH)
            json.loads(
                json.dumps({"hosts": [{"host_name": one, "trust_lvl": "trusted"} for one in names]})
            )
            time.sleep(max(0, began + second + number / PER_SECOND - time.monotonic()))


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
