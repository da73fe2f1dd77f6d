# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""filterd as a process beside a site."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens


def configure(directory: Path, port: int) -> Sequence[str]:
    """Write its configuration; return its command line."""
    options = {
        "server": {"port": port},
        "snapshots": {"directory": str(directory / "snapshot.d"), "owner": ""},
    }
    (directory / "filterd.yaml").write_text(json.dumps(options))
    return [
        sys.executable,
        "-m",
        "ovirt_tcp_plugin.scheduler.main",
        "--config-dir",
        str(directory),
        "run",
    ]


def start(processes: Processes, directory: Path) -> str:
    """Start it; return its URL."""
    (port,) = free_ports(1)
    processes.start("filterd", configure(directory, port), lambda: listens(port))
    return f"http://127.0.0.1:{port}/"
