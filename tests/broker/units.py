# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Processes that are started again when they die, as systemd does, and when they were away."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ovirt_tcp_plugin.lab.processes import listens
from ovirt_tcp_plugin.parent import die_with_parent

POLL_S = 0.01


class Absences:
    """Spans of time, on CLOCK_MONOTONIC, in which something was away."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self._since: float | None = None

    def begin(self) -> None:
        self._since = time.monotonic() if self._since is None else self._since

    def end(self) -> None:
        if self._since is not None:
            self.spans.append((self._since, time.monotonic()))
            self._since = None

    def meets(self, first: float, last: float) -> bool:
        """Return whether it was away at any time between these two."""
        since = self._since
        return any(began <= last and ended >= first for began, ended in self.spans) or (
            since is not None and since <= last
        )


class Unit:
    """One process, with its supervisor in a thread: the kernel kills it when that ends."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, restart_s: float, logs: Path
    ) -> None:
        self._command, self._port, self._restart_s, self._log = (
            command,
            port,
            restart_s,
            logs / f"{name}.log",
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping, self._held = threading.Event(), threading.Event()
        self.name, self.away, self.kills, self.started = name, Absences(), 0, 0
        self.away.begin()
        self._thread = threading.Thread(target=self._supervise, name=f"supervisor of {name}")
        self._thread.start()

    @property
    def serving(self) -> bool:
        return not self.away.meets(time.monotonic(), time.monotonic())

    def kill(self) -> None:
        """kill -9, if it is there."""
        if self._signal(signal.SIGKILL):
            self.away.begin()
            self.kills += 1

    def pause(self, seconds: float) -> None:
        """Have it stand still for a while."""
        if self.serving and self._signal(signal.SIGSTOP):
            self.away.begin()
            time.sleep(seconds)
            self._signal(signal.SIGCONT)
            if self._process is not None and self._process.poll() is None:
                self.away.end()

    def hold(self) -> None:
        """kill -9, and no start before `release`."""
        self._held.set()
        self.kill()

    def release(self) -> None:
        self._held.clear()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _signal(self, number: signal.Signals) -> bool:
        process = self._process
        if process is None or process.poll() is not None:
            return False
        process.send_signal(number)
        return True

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            if self._held.is_set():
                time.sleep(POLL_S)
                continue
            with self._log.open("ab") as log:
                pipe = subprocess.DEVNULL
                self._process = subprocess.Popen(
                    self._command,
                    stdin=pipe,
                    stdout=log,
                    stderr=log,
                    preexec_fn=die_with_parent,
                    env=dict(os.environ),
                )
            self.started += 1
            while (
                self._process.poll() is None
                and not listens(self._port)
                and not self._stopping.is_set()
            ):
                time.sleep(POLL_S)
            self.away.end()
            while self._process.poll() is None and not self._stopping.wait(POLL_S):
                continue
            self.away.begin()
            self._stopping.wait(self._restart_s)
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
