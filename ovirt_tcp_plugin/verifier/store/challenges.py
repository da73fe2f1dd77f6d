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
_ANSWER = PreparedStatement(
    _WITH_NONCE.values(nonce=sa.null(), answered=rounds.c.issued, home=sa.bindparam("the_address"))
)

# Whoever has a copy of a host's certificate can ask for its challenges, but not answer them. A
# nonce may be replaced by a poll from another address only if that is where the host's evidence
# comes from, or if the holder of the nonce has shown no evidence for so long: as long as a nonce
# lives where it is the host's usual address, and as a TPM needs where it is not.
_HOLD_HOME_MS = sa.literal_column("15000", sa.BigInteger)
_HOLD_ELSEWHERE_MS = sa.literal_column("3000", sa.BigInteger)

_ADDRESS = sa.bindparam("the_address", type_=sa.String)
_NOW_MS = sa.bindparam("the_wall_ms", type_=sa.BigInteger)
_IS_FREE = sa.or_(rounds.c.nonce.is_(None), rounds.c.holder.is_(None))
_IS_STALE = sa.or_(rounds.c.held_ms > _NOW_MS, rounds.c.held_ms + _HOLD_HOME_MS <= _NOW_MS)
_IS_HELD_BY_CALLER = sa.and_(rounds.c.nonce.is_not(None), rounds.c.holder == _ADDRESS)
_IS_HELD_ELSEWHERE_FOR_LONG = sa.and_(
    rounds.c.holder.is_distinct_from(rounds.c.home),
    rounds.c.held_ms + _HOLD_ELSEWHERE_MS <= _NOW_MS,
)
_MAY_HOLD = sa.or_(
    _IS_FREE,
    _IS_STALE,
    rounds.c.holder == _ADDRESS,
    rounds.c.home == _ADDRESS,
    _IS_HELD_ELSEWHERE_FOR_LONG,
)
_ISSUE = PreparedStatement(
    sa.update(rounds)
    .where(_OF_HOST, _MAY_HOLD)
    .values(
        holder=_ADDRESS,
        held_ms=sa.case(
            (sa.and_(_IS_HELD_BY_CALLER, sa.not_(_IS_STALE)), rounds.c.held_ms), else_=_NOW_MS
        ),
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
        home: the address that the last authentic evidence came from, empty if there was none.
    """

    asked: int
    issued: int
    answered: int
    nonce: Optional[IssuedNonce]
    clock_id: str
    home: str

    @property
    def outstanding(self) -> bool:
        """Whether a question waits for its answer, sent out or not."""
        return self.asked > self.answered


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


def issue(
    connection: Connection, issued: IssuedNonce, clock_id: str, address: str, wall_ms: int
) -> bool:
    """Send a challenge out, for every question so far. The nonce that was out before is void.

    Args:
        address: where it is sent.
        wall_ms: the wall clock.

    Returns:
        False, changing nothing, if a nonce is out elsewhere that this address may not replace.
    """
    selection = {bank: list(indices) for bank, indices in issued.challenge.selection.items()}
    parameters = {
        "the_host": issued.host_name,
        "the_address": address,
        "the_wall_ms": wall_ms,
        "nonce": issued.challenge.nonce.hex(),
        "selection": json.dumps(selection),
        "clock_id": clock_id,
        "born_ms": issued.born_ms,
        "end_ms": issued.end_ms,
    }
    return _ISSUE.change(connection, parameters) == 1


def take(connection: Connection, host_name: str, nonce: bytes) -> bool:
    """Take a nonce back, unanswered; return whether it was out.

    Only one caller gets True for a nonce.
    """
    parameters = {"the_host": host_name, "the_nonce": nonce.hex()}
    return _TAKE.change(connection, parameters) == 1


def answer(connection: Connection, host_name: str, nonce: bytes, address: str) -> bool:
    """Take a nonce back and count its question as answered; return whether it was out.

    The address that the evidence came from is the host's from now on.
    """
    parameters = {"the_host": host_name, "the_nonce": nonce.hex(), "the_address": address}
    return _ANSWER.change(connection, parameters) == 1


def drop(connection: Connection, host_name: str, address: str) -> None:
    """Make the nonce void that is out for a host, if it was sent to that address."""
    held = sa.or_(rounds.c.holder == address, rounds.c.holder.is_(None))
    connection.execute(_DROP_ALL.where(rounds.c.host_name == host_name, held))


def find(connection: Connection, host_name: str) -> Optional[ChallengeState]:
    """Return where the questions to a host stand, None if it is not enrolled."""
    statement = sa.select(*columns()).where(rounds.c.host_name == host_name)
    row = connection.execute(statement).mappings().first()
    return None if row is None else decode(row)


def outstanding(connection: Connection) -> list[str]:
    """Return the hosts with a question that was not answered yet."""
    statement = sa.select(rounds.c.host_name).where(rounds.c.asked > rounds.c.answered)
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
    home = row["round_home"]
    return ChallengeState(
        asked=counts.asked,
        issued=counts.issued,
        answered=counts.answered,
        nonce=_nonce(row),
        clock_id=clock_id if isinstance(clock_id, str) else "",
        home=home if isinstance(home, str) else "",
    )


def check(row: Any) -> None:
    """Return if a row of the table can be read. Raises ValueError."""
    stored_columns.text(row["host_name"])
    for name in ("clock_id", "holder", "home"):
        if row[name] is not None:
            stored_columns.text(row[name])
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
