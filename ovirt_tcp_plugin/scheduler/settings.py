# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Options of `/etc/ovirt-tcp/filterd.yaml`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ovirt_tcp_plugin import bounds

# A verdict that ended is a longer time away.
MAX_RELOAD_S = 60


@dataclasses.dataclass(frozen=True)
class Server:
    """Where the engine finds the external scheduler."""

    # Address and port of the engine's ExternalSchedulerServiceURL. It stays on the engine machine.
    # A socket that systemd hands over is used instead.
    address: str = "127.0.0.1"
    port: int = 18781

    def __post_init__(self) -> None:
        bounds.check_between("port", self.port, 0, bounds.MAX_PORT)


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """What the answers are made from."""

    # Directory that the broker writes.
    directory: Path = Path("/run/ovirt-tcp/snapshot.d")
    # User whose files are believed; empty means root and this process's own.
    owner: str = "ovirt-tcp-broker"
    # Pause between two looks at the directory, in seconds.
    reload: float = 0.2

    def __post_init__(self) -> None:
        bounds.check_between("reload", self.reload, 0, MAX_RELOAD_S)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All sections."""

    server: Server = Server()
    snapshots: Snapshots = Snapshots()
