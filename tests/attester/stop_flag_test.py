# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A pause that a signal handler ends."""

from __future__ import annotations

import os
import signal
import threading
import time

from ovirt_tcp_plugin.attester.stop_flag import StopFlag


def test_a_signal_handler_ends_a_pause() -> None:
    stop_flag = StopFlag()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: stop_flag.set())
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    started_s = time.monotonic()
    try:
        stop_flag.pause(20)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert stop_flag.is_set
    assert time.monotonic() - started_s < 10


def test_no_pause_begins_after_it_was_set_however_often() -> None:
    stop_flag = StopFlag()
    for _ in range(100_000):
        stop_flag.set()
    started_s = time.monotonic()

    stop_flag.pause(20)

    assert time.monotonic() - started_s < 10


def test_a_pause_without_a_stop_lasts_as_long_as_it_should() -> None:
    stop_flag = StopFlag()
    started_s = time.monotonic()

    stop_flag.pause(0.05)

    assert time.monotonic() - started_s >= 0.05
    assert not stop_flag.is_set
