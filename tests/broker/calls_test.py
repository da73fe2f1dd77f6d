# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Calls side by side: one that hangs keeps only its own subject waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ovirt_tcp_plugin.broker import calls as calls_module
from ovirt_tcp_plugin.broker.calls import CALLS_AT_ONCE, MOST_THREADS, Calls


@pytest.fixture
def calls() -> Iterator[Calls]:
    made = Calls()
    yield made
    made.stop()


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    over = threading.Event()
    yield over
    over.set()


def test_more_that_hang_than_run_at_once_delay_no_other(
    calls: Calls, hang: threading.Event
) -> None:
    done: list[int] = []
    jobs = {f"hanging{n}": lambda: hang.wait(10) and None for n in range(CALLS_AT_ONCE + 1)}
    jobs.update({f"good{n}": lambda n=n: done.append(n) for n in range(20)})
    began = time.monotonic()
    assert calls.run(jobs) == {f"hanging{n}" for n in range(CALLS_AT_ONCE + 1)}
    assert sorted(done) == list(range(20))
    assert time.monotonic() - began < 5


def test_a_subject_under_way_is_not_called_again(calls: Calls, hang: threading.Event) -> None:
    begun: list[int] = []

    def job() -> None:
        begun.append(1)
        hang.wait(10)

    for _ in range(2):
        assert calls.run({"wall": job}) == {"wall"}
    assert calls.is_under_way("wall")
    assert begun == [1]
    hang.set()
    while calls.is_under_way("wall"):
        time.sleep(0.01)
    assert calls.run({"wall": job}) == frozenset()
    assert begun == [1, 1]


def test_threads_are_bounded_and_who_finds_none_comes_later(
    calls: Calls, hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "PATIENCE_S", 0.05)
    jobs = {str(n): lambda: hang.wait(10) and None for n in range(MOST_THREADS + 5)}
    done: list[int] = []
    assert calls.run(jobs) == set(jobs)
    assert calls.run({"late": lambda: done.append(1)}) == {"late"}
    hang.set()
    while any(calls.is_under_way(subject) for subject in jobs):
        time.sleep(0.01)
    calls.run({"late": lambda: done.append(1)})
    assert done == [1]


def test_a_fault_of_our_own_is_raised(calls: Calls) -> None:
    def job() -> None:
        raise KeyError("a fault of our own")

    with pytest.raises(KeyError):
        calls.run({"wall": job})
    assert not calls.is_under_way("wall")
