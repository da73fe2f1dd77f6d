# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Fair by cost: what a peer's requests take of the server's time is charged to that peer.

One loop serves everybody, and a request takes some tenths of a millisecond or a tenth of a second,
as its sender likes. So each peer has an account: the processor time that its requests really took,
decoding, refusals and answers included. Time that passes pays a debt; who owes too much waits.

Work that takes long is done in turns of some milliseconds: one at a time, and after each the others
have as long if they have work. Peers that owe have a lane of their own, so that all of them
together leave most of the time to the rest. Accounts and lanes are of one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional, TypeVar

T = TypeVar("T")
AnyTurn = Callable[[], contextlib.AbstractAsyncContextManager[None]]

# Accounts of peers that owe; beyond it, whoever owes least is forgiven.
MAX_ACCOUNTS = 20_000
# Hosts that are looked up, or written into an answer, in one turn: some milliseconds.
HOSTS_A_TURN = 100
# A pass of the loop that took less had nothing to do.
IDLE_PASS_S = 0.0002
# So many times as long as a turn is the rest after it, in the lane of those who owe: together they
# take at most a quarter of the time.
OWING_REST = 3
# However long a turn took, because the machine or the database had other things to do.
LONGEST_REST_S = 0.5


class Peer(NamedTuple):
    """Somebody whose requests are charged to one account.

    Attributes:
        name: who it is, and at which address.
        share: part of one core's time that it may take for as long as it likes.
        at_once_s: seconds of it that it may take at once after it was quiet.
    """

    name: str
    share: float
    at_once_s: float


class Accounts:
    """What each peer owes, in seconds of the server's time.

    Args:
        now_s: a clock that only goes forward.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        # When each peer will have paid; who has is not in it.
        self._paid_s: dict[str, float] = {}
        # Those who owed too much, until they have paid all.
        self._owing: set[str] = set()

    def charge(self, peer: Peer, cost_s: float) -> None:
        """Add to what a peer owes."""
        now_s = self._now_s()
        paid_s = max(self._paid_s.get(peer.name, now_s), now_s) + cost_s / peer.share
        self._paid_s[peer.name] = paid_s
        if (paid_s - now_s) * peer.share > peer.at_once_s:
            self._owing.add(peer.name)
        if len(self._paid_s) > MAX_ACCOUNTS:
            self._close_accounts(now_s)

    def owes(self, peer: Peer) -> bool:
        """Return whether a peer has owed too much, and has not paid all of it yet."""
        if peer.name not in self._owing:
            return False
        if self._paid_s.get(peer.name, 0) > self._now_s():
            return True
        self._owing.discard(peer.name)
        return False

    def wait_s(self, peer: Peer) -> float:
        """Return after how many seconds a peer may ask again; 0 for at once."""
        paid_s = self._paid_s.get(peer.name)
        if paid_s is None:
            return 0.0
        return max(paid_s - self._now_s() - peer.at_once_s / peer.share, 0.0)

    def _close_accounts(self, now_s: float) -> None:
        """Forget who has paid; if that makes no room, forgive the half that owes least."""
        self._paid_s = {name: end_s for name, end_s in self._paid_s.items() if end_s > now_s}
        if len(self._paid_s) > MAX_ACCOUNTS:
            by_debt = sorted(self._paid_s.items(), key=lambda account: account[1])
            self._paid_s = dict(by_debt[len(by_debt) // 2 :])
        self._owing.intersection_update(self._paid_s)


class Metered(Generator[Any, Any, T]):
    """Work of a coroutine; the processor time of each of its steps is told to `spend`.

    What it waits for is not counted, nor what other programs of the machine took meanwhile. Await
    it.
    """

    def __init__(self, work: Coroutine[Any, Any, T], spend: Callable[[float], None]) -> None:
        self._work = work
        self._spend = spend

    def __await__(self) -> Metered[T]:
        return self

    def send(self, value: Any) -> Any:
        began_s = time.thread_time()
        try:
            return self._work.send(value)
        finally:
            self._spend(time.thread_time() - began_s)

    def throw(self, *fault: Any) -> Any:
        began_s = time.thread_time()
        try:
            return self._work.throw(*fault)
        finally:
            self._spend(time.thread_time() - began_s)


class Turns:
    """Turns of costly work, in two lanes: one for those who owe, one for everybody else."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._lane = _Lane(1)
        self._owing_lane = _Lane(OWING_REST)

    @contextlib.asynccontextmanager
    async def of(self, peer: Peer) -> AsyncIterator[None]:
        """Wait for this peer's turn; the body is the turn, some milliseconds of work."""
        lane = self._owing_lane if self._accounts.owes(peer) else self._lane
        async with lane.turn():
            yield

    @contextlib.asynccontextmanager
    async def urgent(self, peer: Peer) -> AsyncIterator[None]:
        """Wait for nothing unless the peer owes: for what agents send."""
        if not self._accounts.owes(peer):
            yield
            return
        async with self._owing_lane.turn():
            yield


class _Lane:
    """One turn at a time, in the order of asking, and a rest after each.

    Args:
        rest: how many times as long as the turn. The rest is cut short when nobody has work, but
            in the lane of those who owe.
    """

    def __init__(self, rest: int) -> None:
        self._rest = rest
        self._line = Line()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._line.place():
            began_s = time.monotonic()
            try:
                yield
            finally:
                took_s = time.monotonic() - began_s
                await self._pause(min(took_s, LONGEST_REST_S / self._rest))

    async def _pause(self, took_s: float) -> None:
        if self._rest > 1:
            await asyncio.sleep(self._rest * took_s)
            return
        end_s = time.monotonic() + took_s
        began_s = time.monotonic()
        while began_s < end_s:
            await asyncio.sleep(0)
            now_s = time.monotonic()
            if now_s - began_s < IDLE_PASS_S:
                return
            began_s = now_s


class Line:
    """People in a line: one is served at a time, in the order of coming."""

    def __init__(self) -> None:
        self.people = 0
        # Python 3.9 makes a lock for a running loop only.
        self._lock: Optional[asyncio.Lock] = None

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[bool]:
        """Wait in the line; the body is being served. Gives whether there was a wait."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        waits = self._lock.locked()
        self.people += 1
        try:
            async with self._lock:
                yield waits
        finally:
            self.people -= 1


class Lines:
    """A line for each peer: one costly request of a peer at a time."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}

    @contextlib.asynccontextmanager
    async def of(self, peer: Peer) -> AsyncIterator[bool]:
        """Wait until no other costly request of this peer is served.

        Gives whether there was a wait.
        """
        line = self._lines.setdefault(peer.name, Line())
        try:
            async with line.place() as waited:
                yield waited
        finally:
            if not line.people:
                self._lines.pop(peer.name, None)


def parts(hosts: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split hosts so that each part is the work of one turn."""
    for start in range(0, len(hosts), HOSTS_A_TURN):
        yield hosts[start : start + HOSTS_A_TURN]


def whole_seconds(wait_s: float) -> int:
    """Return a wait as `Retry-After` tells it."""
    return max(math.ceil(wait_s), 1)
