# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`python -m ovirt_tcp_plugin.lab.engine CONFIG.json`: an engine as a process of its own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator


def main() -> None:
    """Serve until SIGTERM."""
    # Blocked before any thread starts, so that only sigwait takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    content = Path(sys.argv[1]).read_text(encoding="utf-8")
    engine = EngineSimulator(Config(**json.loads(content)))
    engine.start()
    places = {"url": engine.url, "control_port": engine.web.control_port}
    print(json.dumps(places), flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    engine.stop()


if __name__ == "__main__":
    main()
