# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Questions to hosts, and the nonces that are out. Each nonce is taken back once (check 4)."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.messages import evidence, tpm2
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.store import columns as stored_columns
from ovirt_tcp_plugin.verifier.store.prepared_statements import PreparedStatement
from ovirt_tcp_plugin.verifier.store.schema import hosts, rounds

log = logging.getLogger("verifier.store")

# SQLite takes 32766 parameters in one statement, older ones 999.
CHUNK = 500

# A host that was asked a thousand times a second has not come so far in a thousand years. Beyond
# it the number is corrupt, and adding to it would fail for everybody at PostgreSQL.
MAX_QUESTIONS = 2**45

_ASK_ALL = (
    sa.update(rounds)
    .where(rounds.c.asked >= 0, rounds.c.asked < MAX_QUESTIONS)
    .values(asked=rounds.c.asked + 1)
)
_DROP_ALL = sa.update(rounds).values(nonce=None)

_OF_HOST = rounds.c.host_name == sa.bindparam("the_host")
_WITH_NONCE = sa.update(rounds).where(_OF_HOST, rounds.c.nonce == sa.bindparam("the_nonce"))
_TAKE = PreparedStatement(_WITH_NONCE.values(nonce=sa.null()))
_ANSWER = PreparedStatement(_WITH_NONCE.values(nonce=sa.null(), answered=rounds.c.issued))
_ISSUE = PreparedStatement(
    sa.update(rounds)
    .where(_OF_HOST)
    .values(
        issued=rounds.c.asked,
        nonce=sa.bindparam("nonce"),
        selection=sa.bindparam("selection"),
        clock_id=sa.bindparam("clock_id"),
        born_ms=sa.bindparam("born_ms"),
        end_ms=sa.bindparam("end_ms"),
    )
)


_NUMBERS = sa.select(rounds.c.host_name, rounds.c.asked, rounds.c.issued, rounds.c.answered)


class _Counts(NamedTuple):
    """Numbers of the questions to a host, as `ChallengeState` has them."""

    asked: int
    issued: int
    answered: int


@dataclasses.dataclass(frozen=True)
class ChallengeState:
    """Where the questions to one host stand.

    Attributes:
        asked, issued, answered: number of the last question that was asked, sent out as a
            challenge, and answered.
        nonce: what is out, None if nothing.
        clock_id: boot id of the server whose clock the nonce's times are of.
    """

    asked: int
    issued: int
    answered: int
    nonce: Optional[IssuedNonce]
    clock_id: str

    @property
    def outstanding(self) -> bool:
        """Whether a question waits to be sent out."""
        return self.asked > self.issued


def begin(connection: Connection, host_name: str) -> None:
    """Start a newly enrolled host's questions."""
    row = {"host_name": host_name, "asked": 0, "issued": 0, "answered": 0}
    connection.execute(sa.insert(rounds).values(**row))


def begin_missing(connection: Connection) -> None:
    """Ask each enrolled host whose row was removed the first question."""
    asked = sa.select(rounds.c.host_name)
    missing = sa.select(hosts.c.name).where(hosts.c.name.not_in(asked))
    for host_name in connection.execute(missing).scalars().all():
        begin(connection, host_name)
        connection.execute(_ASK_ALL.where(rounds.c.host_name == host_name))


def end(connection: Connection, host_name: str) -> None:
    """Forget a host's questions."""
    connection.execute(sa.delete(rounds).where(rounds.c.host_name == host_name))


def ask(connection: Connection, host_names: Sequence[str]) -> dict[str, int]:
    """Ask hosts for fresh evidence; return the number of the question to each that is enrolled.

    A host whose numbers are corrupt starts at the first question again.
    """
    numbers: dict[str, int] = {}
    for chunk in chunks(host_names):
        connection.execute(_ASK_ALL.where(rounds.c.host_name.in_(chunk)))
        for name, counts in _counts_of(connection, chunk).items():
            if counts is None:
                counts = _start_again(connection, name)
            numbers[name] = counts.asked
    return numbers


def drop_all(connection: Connection) -> None:
    """End every nonce that is out."""
    connection.execute(_DROP_ALL)


def ask_all(connection: Connection) -> None:
    """Ask every host for fresh evidence."""
    connection.execute(_ASK_ALL)


def issue(connection: Connection, issued: IssuedNonce, clock_id: str) -> None:
    """Send a challenge out, for every question so far. The nonce that was out before is void."""
    selection = {bank: list(indices) for bank, indices in issued.challenge.selection.items()}
    parameters = {
        "the_host": issued.host_name,
        "nonce": issued.challenge.nonce.hex(),
        "selection": json.dumps(selection),
        "clock_id": clock_id,
        "born_ms": issued.born_ms,
        "end_ms": issued.end_ms,
    }
    _ISSUE.change(connection, parameters)


def take(connection: Connection, host_name: str, nonce: bytes) -> bool:
    """Take a nonce back, unanswered; return whether it was out.

    Only one caller gets True for a nonce.
    """
    parameters = {"the_host": host_name, "the_nonce": nonce.hex()}
    return _TAKE.change(connection, parameters) == 1


def answer(connection: Connection, host_name: str, nonce: bytes) -> bool:
    """Take a nonce back and count its question as answered; return whether it was out."""
    parameters = {"the_host": host_name, "the_nonce": nonce.hex()}
    return _ANSWER.change(connection, parameters) == 1


def drop(connection: Connection, host_name: str) -> None:
    """Make the nonce void that is out for a host."""
    connection.execute(_DROP_ALL.where(rounds.c.host_name == host_name))


def find(connection: Connection, host_name: str) -> Optional[ChallengeState]:
    """Return where the questions to a host stand, None if it is not enrolled."""
    statement = sa.select(*columns()).where(rounds.c.host_name == host_name)
    row = connection.execute(statement).mappings().first()
    return None if row is None else decode(row)


def outstanding(connection: Connection) -> list[str]:
    """Return the hosts with a question that was not sent out yet."""
    statement = sa.select(rounds.c.host_name).where(rounds.c.asked > rounds.c.issued)
    return list(connection.execute(statement).scalars())


def answered(connection: Connection, host_names: Sequence[str]) -> Mapping[str, int]:
    """Return the number of the last answered question by host; none where it cannot be told."""
    numbers: dict[str, int] = {}
    for chunk in chunks(host_names):
        for name, counts in _counts_of(connection, chunk).items():
            if counts is not None:
                numbers[name] = counts.answered
    return numbers


def chunks(names: Sequence[str]) -> Iterable[Sequence[str]]:
    """Split names so that each part fits into one statement."""
    return (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))


def _counts_of(connection: Connection, host_names: Sequence[str]) -> dict[str, Optional[_Counts]]:
    """Return the numbers of the questions to hosts; None for numbers that are corrupt."""
    counts: dict[str, Optional[_Counts]] = {}
    of_hosts = _NUMBERS.where(rounds.c.host_name.in_(host_names))
    for name, asked, issued, last_answered in connection.execute(of_hosts):
        counts[name] = _counts(asked, issued, last_answered)
    return counts


def _counts(asked: object, issued: object, last_answered: object) -> Optional[_Counts]:
    """Return the numbers of a row; None if they were never written together.

    An answer with too high a number would settle questions that nobody answered.
    """
    try:
        counts = _Counts(
            stored_columns.number(asked),
            stored_columns.number(issued),
            stored_columns.number(last_answered),
        )
    except stored_columns.BadValue:
        return None
    in_order = counts.answered <= counts.issued <= counts.asked <= MAX_QUESTIONS
    return counts if in_order else None


def _start_again(connection: Connection, host_name: str) -> _Counts:
    """Ask a host whose numbers are corrupt the first question."""
    log.error("record mended table=rounds host=%s: its questions start again", host_name)
    first = _Counts(asked=1, issued=0, answered=0)
    of_host = sa.update(rounds).where(rounds.c.host_name == host_name)
    connection.execute(of_host.values(**first._asdict(), nonce=None))
    return first


def columns() -> list[Any]:
    """Return the columns that `decode` reads, for a statement that joins other tables."""
    return [column.label(f"round_{column.name}") for column in rounds.c]


def decode(row: Any) -> ChallengeState:
    """Return what a row with `columns` says.

    Corrupt numbers count as none: no question is outstanding, and the next one mends them.
    """
    counts = _counts(row["round_asked"], row["round_issued"], row["round_answered"])
    if counts is None:
        counts = _Counts(0, 0, 0)
    clock_id = row["round_clock_id"]
    return ChallengeState(
        asked=counts.asked,
        issued=counts.issued,
        answered=counts.answered,
        nonce=_nonce(row),
        clock_id=clock_id if isinstance(clock_id, str) else "",
    )


def check(row: Any) -> None:
    """Return if a row of the table can be read. Raises ValueError."""
    stored_columns.text(row["host_name"])
    if row["clock_id"] is not None:
        stored_columns.text(row["clock_id"])
    if _counts(row["asked"], row["issued"], row["answered"]) is None:
        raise stored_columns.BadValue("the numbers of its questions are corrupt")
    labelled = {f"round_{name}": value for name, value in row.items()}
    if row["nonce"] is not None and _nonce(labelled) is None:
        raise stored_columns.BadValue("its nonce is corrupt")


def _nonce(row: Any) -> Optional[IssuedNonce]:
    """Return the nonce that is out; one that cannot be read is replaced by the next challenge."""
    if row["round_nonce"] is None:
        return None
    try:
        nonce = bytes.fromhex(row["round_nonce"])
        selection = _selection(row["round_selection"])
        born_ms = stored_columns.number(row["round_born_ms"])
        end_ms = stored_columns.number(row["round_end_ms"])
        host_name = stored_columns.text(row["round_host_name"])
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    challenge = evidence.Challenge(nonce, selection, end_ms - born_ms)
    return IssuedNonce(challenge, host_name, born_ms, end_ms)


def _selection(stored: object) -> tpm2.Selection:
    """Return the selection of PCRs in a column. Raises ValueError, TypeError, AttributeError."""
    banks = json.loads(stored_columns.text(stored))
    selection = {}
    for bank, indices in banks.items():
        selection[bank] = tuple(stored_columns.number(index) for index in indices)
    return selection
