# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What systemd does with filterd's units."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from tests.scheduler.filterd import Filterd

# What systemd makes of the units.
RESTART_S = 0.1


class Systemd:
    """What it does with filterd's units: holds the socket, waits for readiness, and starts it again
    when it died."""

    def __init__(self, filterd: Filterd, directory: Path) -> None:
        self._command, self._notify = filterd.command, directory / "notify"
        self.listener = socket.create_server(("127.0.0.1", filterd.port), backlog=1024)
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(self._notify))
        self.notified.settimeout(20)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        script = 'exec 3<&"$1"; export LISTEN_FDS=1 LISTEN_PID=$$; shift; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(self.listener.fileno()), *self._command],
            pass_fds=[self.listener.fileno()],
            env={**os.environ, "NOTIFY_SOCKET": str(self._notify)},
            stderr=subprocess.DEVNULL,
        )
        while (
            self.notified.recv(100) != b"READY=1"
        ):  # the rest are WATCHDOG=1, also of the process before
            pass
        return self.process

    def restart(self) -> float:
        """Kill it, start it again as the unit says, and return the seconds that the start took."""
        time.sleep(RESTART_S)  # some calls are answered meanwhile
        self.process.kill()
        self.process.wait()
        time.sleep(RESTART_S)
        began = time.monotonic()
        self.start()
        return time.monotonic() - began

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0
        self.listener.close()
        self.notified.close()
