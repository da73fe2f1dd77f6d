# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A simulated engine with many hosts in many trusted pools, as a process of its own.

python -m tests.bench.pools DIRECTORY HOSTS POOLS VMS PORT CONTROL_PORT
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from tests.broker.site import make_pools

PASSWORD = "of the engine"
USER = "broker@internal"


def make(
    directory: Path, hosts: int, pools: int, vms: int, ports: tuple[int, int] = (0, 0)
) -> EngineSimulator:
    """Return an engine that is not started yet: every cluster is a trusted pool, every host runs
    its share of the VMs."""
    clusters = [f"pool{n:03}" for n in range(pools)]
    given: list[dict[str, Any]] = [
        {"name": f"h{n:05}", "address": f"h{n:05}.lab", "cluster": clusters[n * pools // hosts]}
        for n in range(hosts)
    ]
    # A host's VMs are in its cluster.
    config = Config(
        str(directory / "engine.pem"),
        str(directory / "engine.key"),
        {},
        directory={USER: PASSWORD},
        clusters=clusters,
        hosts=given,
        vms=[
            {
                "name": f"vm{n:05}",
                "cluster": given[n % hosts]["cluster"],
                "host": given[n % hosts]["name"],
            }
            for n in range(vms)
        ],
        port=ports[0],
        control_port=ports[1],
    )
    engine = EngineSimulator(config)
    make_pools(engine.model)
    return engine


def main() -> None:
    """Serve until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    hosts, pools, vms, port, control_port = map(int, sys.argv[2:7])
    engine = make(Path(sys.argv[1]), hosts, pools, vms, (port, control_port))
    engine.start()
    signal.sigwait({signal.SIGTERM})
    engine.stop()


if __name__ == "__main__":
    main()
