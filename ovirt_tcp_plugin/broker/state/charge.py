# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which of several brokers at one engine is in charge: it alone edits walls and moves hosts. Pure.

Brokers speak through events of the engine, whose ids give all of them the same order. In that
order:

1. A broker that starts writes a *claim*, under a token of its own.
2. Whoever is in charge, or claimed earlier, answers another's later claim by a *refusal* of it.
3. A claim that nobody refused for `ANSWER_MS` is followed by a *charge*: the broker is in charge.
4. Of a refusal of a claim, and the charge of the same claim, the earlier counts.
5. Whoever is in charge and sees the charge of another, which it did not refuse before, is relieved.

A broker that is refused or relieved is *passive*: it watches, attests and writes snapshots by its
own evidence, and changes nothing at the engine. It claims again every `AGAIN_MS`, so that a site
whose broker died has another at the latest then. A broker that was in charge before a restart goes
on at once, and claims beside it. One whose messages do not show acts after `UNSEEN_MS`: two brokers
do less harm than none.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterator
from typing import Optional

# A broker that runs reads the engine's events every 0.6 s.
ANSWER_MS = 5_000
AGAIN_MS = 300_000
UNSEEN_MS = 60_000
# A message that was written and does not show is written again.
WRITE_AGAIN_MS = 10_000
# Of the messages of a round so many are kept: there are as many as brokers started meanwhile.
MAX_MESSAGES = 1_000

_TRAILER = re.compile(r"\[(claim|refusal|charge) ([0-9a-f]{16}) ([0-9a-f]{16}|-) (\S{1,255})\]$")
NOBODY = "-"


class MessageKind(enum.Enum):
    """What one broker tells the others."""

    CLAIM = "claim"
    REFUSAL = "refusal"
    CHARGE = "charge"


class Standing(enum.Enum):
    """What a broker is among those at its engine."""

    CLAIMING = "claiming"
    IN_CHARGE = "in_charge"
    PASSIVE = "passive"


@dataclasses.dataclass(frozen=True)
class ChargeMessage:
    """A message of a broker.

    Attributes:
        token: of its sender's claim.
        subject: token of the claim that it refuses; NOBODY if it is no refusal.
        machine: its sender's.
    """

    kind: MessageKind
    token: str
    subject: str
    machine: str

    def trailer(self) -> str:
        """Return it as the end of an event's text."""
        return f"[{self.kind.value} {self.token} {self.subject} {self.machine}]"


def parse(text: str) -> Optional[ChargeMessage]:
    """Return the message in an event's text, None if it has none."""
    match = _TRAILER.search(text)
    if match is None:
        return None
    kind, token, subject, machine = match.groups()
    return ChargeMessage(MessageKind(kind), token, subject, machine)


@dataclasses.dataclass(frozen=True)
class SavedClaim:
    """A broker's last claim, and whether it acted then."""

    token: str = ""
    acts: bool = False


NO_CLAIM = SavedClaim()


class Charge:
    """One broker's part. Not thread-safe.

    Args:
        machine: the name of this machine, without blanks.
        make_token: returns a new random token of 16 hexadecimal digits.
        before: the last claim of an earlier run.

    Attributes:
        standing: what it is by the messages.
        acts: whether it changes anything at the engine.
        other: the machine of the broker that is in charge in its place; empty if none is.
    """

    def __init__(
        self,
        machine: str,
        make_token: Callable[[], str],
        now_ms: int,
        before: SavedClaim = NO_CLAIM,
    ) -> None:
        self._machine = machine
        self._make_token = make_token
        self.acts = before.acts
        self.other = ""
        self._own_tokens = {before.token}
        self.standing = Standing.CLAIMING
        self._token = ""
        self._began_ms = now_ms
        # When our claim was first seen among the events.
        self._claimed_ms: Optional[int] = None
        self._passive_ms = 0
        # The first event of each message, and when we last wrote it.
        self._ids: dict[ChargeMessage, int] = {}
        self._written_ms: dict[ChargeMessage, int] = {}
        self._begin(now_ms)

    def saved(self) -> SavedClaim:
        """Return what a restart needs."""
        return SavedClaim(self._token, self.acts)

    def take(self, event_id: int, message: ChargeMessage) -> None:
        """Take a message of any broker into account; `look` follows."""
        if len(self._ids) < MAX_MESSAGES:
            self._ids.setdefault(message, event_id)

    def doubt(self, now_ms: int) -> None:
        """Events were missed, and messages perhaps with them: whoever is in charge claims again."""
        if self.standing is not Standing.PASSIVE:
            self._begin(now_ms)

    def look(self, now_ms: int) -> None:
        """See what follows from the messages and the time."""
        if self.standing is Standing.PASSIVE:
            if now_ms - self._passive_ms >= AGAIN_MS:
                self._begin(now_ms)
            return
        machine = self._in_charge_instead()
        if machine is not None:
            self.standing = Standing.PASSIVE
            self.acts = False
            self.other = machine
            self._passive_ms = now_ms
            return
        if self._claimed_ms is None and self._claim_id is not None:
            self._claimed_ms = now_ms
        if self._charge_id is not None:
            self.standing = Standing.IN_CHARGE
            self.acts = True
            self.other = ""
        elif now_ms - self._began_ms >= UNSEEN_MS:
            self.acts = True
        elif any(self._of_others(MessageKind.CHARGE)):
            # Of before our claim: another one took over while we were away.
            self.acts = False

    def due(self, now_ms: int) -> list[ChargeMessage]:
        """Return the messages to write now; each is due until it shows."""
        if self.standing is Standing.PASSIVE:
            return []
        due = [self._message(MessageKind.CLAIM)]
        due += self._refusals()
        claimed_ms = self._claimed_ms
        if claimed_ms is not None and now_ms - claimed_ms >= ANSWER_MS:
            due.append(self._message(MessageKind.CHARGE))
        return [message for message in due if self._is_due(message, now_ms)]

    def written(self, message: ChargeMessage, now_ms: int) -> None:
        """A message was written, or that failed: it is written again if it does not show."""
        self._written_ms[message] = now_ms

    def machine_of(self, token: str) -> str:
        """Return the machine of a broker that claimed under a token, empty if it is not known."""
        for message in self._ids:
            if message.token == token:
                return message.machine
        return ""

    # Inside

    def _begin(self, now_ms: int) -> None:
        """Claim under a new token, whatever was before."""
        self.standing = Standing.CLAIMING
        self._token = self._make_token()
        self._own_tokens.add(self._token)
        self._began_ms = now_ms
        self._claimed_ms = None
        self._ids = {}
        self._written_ms = {}

    @property
    def _claim_id(self) -> Optional[int]:
        return self._ids.get(self._message(MessageKind.CLAIM))

    @property
    def _charge_id(self) -> Optional[int]:
        return self._ids.get(self._message(MessageKind.CHARGE))

    def _message(self, kind: MessageKind, subject: str = NOBODY) -> ChargeMessage:
        return ChargeMessage(kind, self._token, subject, self._machine)

    def _of_others(self, kind: MessageKind) -> Iterator[ChargeMessage]:
        for message in self._ids:
            if message.kind is kind and message.token not in self._own_tokens:
                yield message

    def _in_charge_instead(self) -> Optional[str]:
        """Return the machine of the broker that refused or relieved this one, None if none did."""
        for refusal, event_id in self._ids.items():
            if refusal.kind is not MessageKind.REFUSAL or refusal.subject != self._token:
                continue
            # By whatever token: a copy of this machine goes on under the one of our earlier run.
            if self._is_before_charge(event_id):
                return refusal.machine
        for charge in self._of_others(MessageKind.CHARGE):
            if self._relieves(charge):
                return charge.machine
        return None

    def _is_before_charge(self, event_id: int) -> bool:
        return self._charge_id is None or event_id < self._charge_id

    def _relieves(self, charge: ChargeMessage) -> bool:
        """Return whether another's charge came after our claim, our charge, and no refusal."""
        charge_id = self._ids[charge]
        last_id = self._claim_id if self._charge_id is None else self._charge_id
        if last_id is None or charge_id < last_id:
            return False
        refusal_id = self._ids.get(self._message(MessageKind.REFUSAL, charge.token))
        return refusal_id is None or charge_id < refusal_id

    def _refusals(self) -> list[ChargeMessage]:
        """Return the refusals of all claims that came after ours."""
        claim_id = self._claim_id
        if claim_id is None:
            return []
        refusals: list[ChargeMessage] = []
        for claim in self._of_others(MessageKind.CLAIM):
            if self._ids[claim] > claim_id:
                refusals.append(self._message(MessageKind.REFUSAL, claim.token))
        return refusals

    def _is_due(self, message: ChargeMessage, now_ms: int) -> bool:
        if message in self._ids:
            return False
        written_ms = self._written_ms.get(message)
        return written_ms is None or now_ms - written_ms >= WRITE_AGAIN_MS
