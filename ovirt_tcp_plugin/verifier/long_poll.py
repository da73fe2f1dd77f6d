# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who is on the line: agents in their long polls, and those who wait for an answer of a host.

Lives in one asyncio loop, so that a step without `await` is atomic. What must outlive the process
is in the store.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine, Mapping
from typing import Optional

from ovirt_tcp_plugin.clock import Clock

# Later than any time.
NEVER_MS = 2**63

# An agent whose evidence is discarded again and again may not keep the server busy.
MIN_CHALLENGE_INTERVAL_MS = 200


@dataclasses.dataclass
class _Waiter:
    """Somebody who wants the answer to question `number`, or a later one."""

    number: int
    answer: asyncio.Future[None]


@dataclasses.dataclass(eq=False)
class Poller:
    """An agent in its long poll.

    Attributes:
        address: where it polls from.
        is_home: whether the host's last evidence came from there.
        wants_challenge: whether it wants to report, though nobody may have asked.
        not_before_ms: when it may be challenged again.
    """

    address: str
    is_home: bool
    wants_challenge: bool
    not_before_ms: int = 0
    is_listening: bool = False


class LongPoll:
    """What goes on with one host.

    Only the newest long poll of an address is answered: an earlier one is of an agent that is gone,
    and would swallow a challenge. Polls from several addresses do not end each other: one may be of
    somebody who stole the host's certificate. A question goes to where evidence comes from.
    """

    def __init__(self) -> None:
        self.challenge_due = False
        # When it is challenged though nobody asks.
        self.refresh_ms = NEVER_MS
        # By whether it went to where the host's evidence comes from: whoever polls elsewhere, with
        # a stolen certificate, puts nobody off there.
        self._last_issue_ms = {True: -MIN_CHALLENGE_INTERVAL_MS, False: -MIN_CHALLENGE_INTERVAL_MS}
        self.waiters: list[_Waiter] = []
        self._pollers: dict[str, Poller] = {}
        self._wake = asyncio.Event()

    @property
    def listening(self) -> bool:
        """Whether an agent is in a long poll."""
        return any(poller.is_listening for poller in self._pollers.values())

    def want_challenge(self) -> None:
        """Have the host challenged as soon as it listens."""
        self.challenge_due = True
        self._wake.set()

    def begin_poll(self, poller: Poller) -> None:
        """Begin a long poll; an earlier one from its address ends."""
        self._pollers[poller.address] = poller
        self._wake.set()

    def end_poll(self, poller: Poller) -> None:
        """Forget a long poll that was answered."""
        if self.is_current(poller):
            self.disconnect(poller.address)

    def disconnect(self, address: str) -> None:
        """End the long poll from an address."""
        self._pollers.pop(address, None)
        self._wake.set()

    def is_current(self, poller: Poller) -> bool:
        """Return whether a long poll was neither ended nor followed by another."""
        return self._pollers.get(poller.address) is poller

    def put_off(self, poller: Poller, until_ms: int) -> None:
        """Have a poller wait that was to be challenged, but may not."""
        poller.wants_challenge = True
        poller.not_before_ms = until_ms

    async def next(self, poller: Poller, end_ms: int, clock: Clock) -> bool:
        """Wait for this long poll's turn to be given the next challenge.

        Returns:
            True when it may be given one; False when it is over, by time or by a newer poll.
        """
        poller.is_listening = True
        try:
            while self.is_current(poller):
                now_ms = clock.now_ms()
                due_ms = self._due_ms(poller)
                if now_ms >= due_ms:
                    self._take(poller, now_ms)
                    return True
                if now_ms >= end_ms:
                    return False
                self._wake.clear()
                await _within(self._wake.wait(), min(end_ms, due_ms) - now_ms)
            return False
        finally:
            poller.is_listening = False

    def _due_ms(self, poller: Poller) -> int:
        """When a poller is to be challenged, as far as is known by now.

        By its own wish, or because the host's evidence is wanted; then where that comes from.
        """
        last_issue_ms = self._last_issue_ms[poller.is_home]
        ready_ms = max(last_issue_ms + MIN_CHALLENGE_INTERVAL_MS, poller.not_before_ms)
        if poller.wants_challenge:
            return ready_ms
        if self._home_listens and not poller.is_home:
            return NEVER_MS
        if self.challenge_due:
            return ready_ms
        return max(ready_ms, self.refresh_ms)

    def _take(self, poller: Poller, now_ms: int) -> None:
        poller.wants_challenge = False
        self._last_issue_ms[poller.is_home] = now_ms
        if poller.is_home or not self._home_listens:
            self.challenge_due = False
            self.refresh_ms = NEVER_MS

    @property
    def _home_listens(self) -> bool:
        pollers = self._pollers.values()
        return any(poller.is_home and poller.is_listening for poller in pollers)

    def settle(self, answered: int) -> None:
        """Wake whoever waited for this answer or an earlier one."""
        for waiter in self.waiters:
            if waiter.number <= answered and not waiter.answer.done():
                waiter.answer.set_result(None)


class LongPolls:
    """The long polls of all hosts."""

    def __init__(self) -> None:
        self._by_host: dict[str, LongPoll] = {}

    def of(self, host_name: str) -> LongPoll:
        """Return what goes on with an enrolled host."""
        return self._by_host.setdefault(host_name, LongPoll())

    def listening(self) -> list[str]:
        """Return the hosts whose agents are in a long poll here."""
        return [name for name, poll in self._by_host.items() if poll.listening]

    def awaited(self) -> list[str]:
        """Return the hosts whose answers somebody waits for."""
        return [name for name, poll in self._by_host.items() if poll.waiters]

    def want_all_challenges(self) -> None:
        """Have every host challenged."""
        for long_poll in self._by_host.values():
            long_poll.want_challenge()

    def answers(self) -> Answers:
        """Begin to wait for answers of hosts; whoever calls this ends it."""
        return Answers(self)


class Answers:
    """The answers to some questions, as they come in. A context: leaving it ends the wait."""

    def __init__(self, long_polls: LongPolls) -> None:
        self._long_polls = long_polls
        self._waiters: dict[str, _Waiter] = {}

    def wait_for(self, numbers: Mapping[str, int]) -> None:
        """Wait for the answers to these questions, too; no host is asked twice."""
        loop = asyncio.get_running_loop()
        for name, number in numbers.items():
            waiter = _Waiter(number, loop.create_future())
            self._waiters[name] = waiter
            self._long_polls.of(name).waiters.append(waiter)

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        for name, waiter in self._waiters.items():
            self._long_polls.of(name).waiters.remove(waiter)

    async def wait(self, wait_ms: int) -> set[str]:
        """Wait until all are in, at most `wait_ms`; return the hosts that answered."""
        answers = [waiter.answer for waiter in self._waiters.values()]
        if answers:
            await asyncio.wait(answers, timeout=max(wait_ms, 0) / 1000)
        return {name for name, waiter in self._waiters.items() if waiter.answer.done()}


async def _within(awaitable: Coroutine[object, object, object], wait_ms: int) -> Optional[object]:
    try:
        return await asyncio.wait_for(awaitable, max(wait_ms, 1) / 1000)
    except asyncio.TimeoutError:
        return None
