# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Child processes of a lab: started with a log each, stopped all, and never left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.parent import die_with_parent

START_WITHIN_S = 30.0
STOP_WITHIN_S = 5.0
POLL_S = 0.02
# An ordinary user's PATH lacks the places where distributions put the programs.
PROGRAM_PATH = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/share/swtpm"
# The end of a log that tells why a process would not start.
LOG_TAIL = 2000


class Processes:
    """The processes of one lab by name. Leaving the context stops them, the last one first."""

    def __init__(self, log_directory: Path) -> None:
        self._logs = log_directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def start(
        self,
        name: str,
        command: Sequence[str],
        ready: Optional[Callable[[], bool]] = None,
        environment: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Start a process, and wait until `ready` says that it answers.

        Raises:
            Unavailable: it ended, or was not ready within START_WITHIN_S; with the end of its log.
        """
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C on the terminal is the lab's affair, not theirs
                preexec_fn=die_with_parent,
            )
        if ready is not None:
            self._wait(name, ready)

    def running(self, name: str) -> bool:
        """Return whether the process lives."""
        return name in self._running and self._running[name].poll() is None

    def pid(self, name: str) -> int:
        """Return the process id of a process that was started."""
        return self._running[name].pid

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process that was started."""
        with contextlib.suppress(ProcessLookupError):
            self._running[name].send_signal(number)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop a process: by `number`, and by SIGKILL if it does not obey."""
        process = self._running.pop(name, None)
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """Stop all, the last started first."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)
        for name in reversed(list(self._running)):
            self.stop(name)

    def log_tail(self, name: str) -> str:
        """Return the end of a process's log."""
        content = (self._logs / f"{name}.log").read_bytes()
        return content[-LOG_TAIL:].decode("utf-8", "replace")

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while not ready():
            if not self.running(name):
                reason = "it ended at its start"
                raise errors.Unavailable(name, f"{reason}:\n{self.log_tail(name)}")
            if time.monotonic() >= deadline:
                reason = f"not ready within {START_WITHIN_S:.0f} s"
                raise errors.Unavailable(name, f"{reason}:\n{self.log_tail(name)}")
            time.sleep(POLL_S)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def listens(port: int) -> bool:
    """Return whether somebody accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def find_program(name: str) -> str:
    """Return the path of a program of swtpm or tboot.

    Raises:
        Unavailable: it is not installed.
    """
    path = shutil.which(name) or shutil.which(name, path=PROGRAM_PATH)
    if path is None:
        raise errors.Unavailable(name, "it is not installed (Debian: swtpm, swtpm-tools and tboot)")
    return path
