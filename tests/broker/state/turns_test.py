# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Long work under the lock lets others have it in between. How long it is held is measured by
`tests.bench.locks`."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Optional

import pytest

from ovirt_tcp_plugin.broker.state import turns
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.turns import in_turns
from tests.bench import locks
from tests.broker.state.full_plans import full_plans
from tests.broker.state.world import OPTIONS
from tests.fake_clock import FakeClock

POOLS = 20

Reading = Callable[[BrokerState], Sequence[object]]


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)


def test_another_thread_has_the_lock_before_all_is_done() -> None:
    lock = threading.RLock()
    done: list[int] = []
    done_then: list[int] = []

    def look() -> None:
        with lock:
            done_then.append(len(done))

    other = threading.Thread(target=look)

    def work(number: int) -> int:
        if number == 0:
            other.start()
        done.append(number)
        return number

    assert in_turns(lock, range(100), work) == list(range(100))
    other.join()
    assert done_then[0] < 100


def test_what_is_gone_when_it_is_its_turn_is_left_out() -> None:
    def work(number: int) -> Optional[int]:
        return None if number == 2 else number

    assert in_turns(threading.RLock(), [1, 2, 3], work) == [1, 3]


@pytest.mark.parametrize(
    "read",
    [
        lambda state: full_plans(state.walls),
        lambda state: state.snapshots(),
        lambda state: state.host_states(),
        lambda state: state.pool_states(),
    ],
    ids=["plans", "snapshots", "hosts", "pools"],
)
def test_all_pools_are_read_one_after_the_other(read: Reading) -> None:
    lock = locks.TimedLock()
    with locks.lock_of_state(lock):
        state = BrokerState(OPTIONS, FakeClock(), random.random)
    listing = locks.listing(POOLS, POOLS, POOLS)
    state.observe_listing(listing, state.begin_listing())
    state.observe_hosts(listing.hosts)
    lock.holds.clear()
    assert len(read(state)) == POOLS
    assert len(lock.holds) > POOLS
