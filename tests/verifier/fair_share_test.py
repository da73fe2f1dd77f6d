# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A peer pays for the time that its requests took, and those who owe leave most to the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from ovirt_tcp_plugin.verifier import fair_share
from ovirt_tcp_plugin.verifier.fair_share import Accounts, Lines, Metered, Peer, Turns

PEER = Peer("peer", share=0.1, at_once_s=0.2)
OTHER = Peer("other", share=0.1, at_once_s=0.2)


class FakeNow:
    """A clock that a test sets forward."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def now() -> FakeNow:
    return FakeNow()


@pytest.fixture
def accounts(now: FakeNow) -> Accounts:
    return Accounts(now)


def burn(seconds: float) -> None:
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


class TestAccounts:
    def test_a_peer_waits_until_it_has_paid_for_what_its_requests_took(
        self, accounts: Accounts, now: FakeNow
    ) -> None:
        accounts.charge(PEER, 0.5)
        assert accounts.wait_s(PEER) == pytest.approx(3)
        assert accounts.wait_s(OTHER) == 0
        now.now_s += 3
        assert accounts.wait_s(PEER) == pytest.approx(0)

    def test_what_it_may_take_at_once_costs_no_wait(self, accounts: Accounts) -> None:
        accounts.charge(PEER, 0.19)
        assert accounts.wait_s(PEER) == 0
        assert not accounts.owes(PEER)

    def test_a_quiet_peer_saves_nothing_up(self, accounts: Accounts, now: FakeNow) -> None:
        accounts.charge(PEER, 0.1)
        now.now_s += 3600
        accounts.charge(PEER, 0.5)
        assert accounts.wait_s(PEER) == pytest.approx(3)

    def test_who_owed_too_much_owes_until_all_is_paid(
        self, accounts: Accounts, now: FakeNow
    ) -> None:
        accounts.charge(PEER, 0.5)
        now.now_s += 4
        assert accounts.owes(PEER)
        now.now_s += 1.1
        assert not accounts.owes(PEER)

    def test_no_peer_takes_more_than_its_share_for_long(
        self, accounts: Accounts, now: FakeNow
    ) -> None:
        began_s = now.now_s
        taken_s = 0.0
        for _ in range(1000):
            now.now_s += accounts.wait_s(PEER)
            accounts.charge(PEER, 0.03)
            taken_s += 0.03
        assert taken_s <= PEER.share * (now.now_s - began_s) + PEER.at_once_s + 0.031

    def test_the_table_is_bounded_and_the_deepest_debts_are_remembered(
        self, accounts: Accounts
    ) -> None:
        accounts.charge(PEER, 5.0)
        for number in range(fair_share.MAX_ACCOUNTS + 100):
            accounts.charge(Peer(str(number), 0.1, 0.2), 0.3)
        assert len(accounts._paid_s) <= fair_share.MAX_ACCOUNTS
        assert len(accounts._owing) <= fair_share.MAX_ACCOUNTS
        assert accounts.owes(PEER)


class TestMetered:
    def test_its_steps_count_and_its_pauses_do_not(self) -> None:
        spent: list[float] = []

        async def work() -> str:
            burn(0.02)
            await asyncio.sleep(0.2)
            burn(0.02)
            return "done"

        async def whole() -> str:
            return await Metered(work(), spent.append)

        assert asyncio.run(whole()) == "done"
        assert 0.04 <= sum(spent) < 0.15

    def test_a_fault_counts_too_and_comes_through(self) -> None:
        spent: list[float] = []

        async def fail() -> None:
            await asyncio.sleep(0)
            burn(0.02)
            raise ValueError("faulty")

        async def whole() -> None:
            await Metered(fail(), spent.append)

        with pytest.raises(ValueError, match="faulty"):
            asyncio.run(whole())
        assert sum(spent) >= 0.02

    def test_who_is_cancelled_may_tidy_up(self) -> None:
        tidied = []

        async def work() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                tidied.append(True)

        async def whole() -> None:
            task = asyncio.ensure_future(Metered(work(), lambda cost_s: None))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

        asyncio.run(whole())
        assert tidied


class TestTurns:
    def run(self, scene: Callable[[Turns, Accounts], Any]) -> Any:
        async def whole() -> Any:
            accounts = Accounts()
            return await scene(Turns(accounts), accounts)

        return asyncio.run(whole())

    def test_one_turn_at_a_time_and_between_two_the_others_have_theirs(self) -> None:
        ended: list[float] = []

        async def others() -> None:
            while True:
                burn(0.001)
                ended.append(time.monotonic())
                await asyncio.sleep(0)

        async def question(turns: Turns) -> None:
            for _ in range(5):
                async with turns.of(PEER):
                    burn(0.01)

        async def scene(turns: Turns, _: Accounts) -> int:
            busy = asyncio.ensure_future(others())
            await asyncio.gather(*(question(turns) for _ in range(4)))
            busy.cancel()
            return len(ended)

        # As long as the 20 turns took, at a millisecond a time; some is lost to a busy machine.
        assert self.run(scene) > 60

    def test_nobody_rests_when_nobody_else_has_work(self) -> None:
        async def scene(turns: Turns, _: Accounts) -> float:
            began_s = time.monotonic()
            for _ in range(20):
                async with turns.of(PEER):
                    await asyncio.sleep(0.01)
            return time.monotonic() - began_s

        assert self.run(scene) < 0.35

    def test_all_who_owe_leave_most_of_the_time_to_the_others(self) -> None:
        peers = [Peer(str(number), 0.1, 0.0) for number in range(10)]

        async def question(turns: Turns, peer: Peer) -> None:
            async with turns.urgent(peer):
                burn(0.01)

        async def scene(turns: Turns, accounts: Accounts) -> float:
            for peer in peers:
                accounts.charge(peer, 1.0)
            began_s = time.monotonic()
            await asyncio.gather(*(question(turns, peer) for peer in peers))
            return time.monotonic() - began_s

        assert self.run(scene) >= 0.1 * (1 + fair_share.OWING_REST)

    def test_who_owes_nothing_does_not_wait_behind_those_who_do(self) -> None:
        async def scene(turns: Turns, accounts: Accounts) -> float:
            accounts.charge(PEER, 10.0)
            began_s = time.monotonic()
            async with turns.of(PEER), turns.of(OTHER), turns.urgent(OTHER):
                return time.monotonic() - began_s

        assert self.run(scene) < 0.1


def test_costly_requests_of_one_peer_are_served_one_after_the_other() -> None:
    served: list[str] = []

    async def request(lines: Lines, peer: Peer, name: str) -> bool:
        async with lines.of(peer) as waited:
            served.append(name)
            await asyncio.sleep(0.01)
            served.append(name)
            return waited

    async def whole() -> list[bool]:
        lines = Lines()
        waits = await asyncio.gather(
            *(
                request(lines, peer, f"{peer.name} {number}")
                for number in (1, 2)
                for peer in (PEER, OTHER)
            )
        )
        assert not lines._lines
        return list(waits)

    assert asyncio.run(whole()) == [False, False, True, True]
    of_peer = [name for name in served if name.startswith("peer")]
    assert of_peer == ["peer 1", "peer 1", "peer 2", "peer 2"]
