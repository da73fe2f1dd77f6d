# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Questions to hosts, and the nonces that are out. Each nonce is taken back once (check 4)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.messages import evidence
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.store.prepared_statements import PreparedStatement
from ovirt_tcp_plugin.verifier.store.schema import rounds

# SQLite takes 32766 parameters in one statement, older ones 999.
CHUNK = 500

_ASK_ALL = sa.update(rounds).values(asked=rounds.c.asked + 1)
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


def end(connection: Connection, host_name: str) -> None:
    """Forget a host's questions."""
    connection.execute(sa.delete(rounds).where(rounds.c.host_name == host_name))


def ask(connection: Connection, host_names: Sequence[str]) -> dict[str, int]:
    """Ask hosts for fresh evidence; return the number of the question to each that is enrolled."""
    numbers: dict[str, int] = {}
    for chunk in chunks(host_names):
        of_chunk = rounds.c.host_name.in_(chunk)
        connection.execute(_ASK_ALL.where(of_chunk))
        numbers.update(_numbers(connection, "asked", chunk))
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
    """Return the number of the last answered question by host."""
    numbers: dict[str, int] = {}
    for chunk in chunks(host_names):
        numbers.update(_numbers(connection, "answered", chunk))
    return numbers


def chunks(names: Sequence[str]) -> Iterable[Sequence[str]]:
    """Split names so that each part fits into one statement."""
    return (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))


def _numbers(connection: Connection, column: str, host_names: Sequence[str]) -> dict[str, int]:
    numbers = sa.select(rounds.c.host_name, rounds.c[column])
    of_hosts = numbers.where(rounds.c.host_name.in_(host_names))
    return {row[0]: row[1] for row in connection.execute(of_hosts)}


def columns() -> list[Any]:
    """Return the columns that `decode` reads, for a statement that joins other tables."""
    return [column.label(f"round_{column.name}") for column in rounds.c]


def decode(row: Any) -> ChallengeState:
    """Return what a row with `columns` says."""
    return ChallengeState(
        asked=_number(row["round_asked"]),
        issued=_number(row["round_issued"]),
        answered=_number(row["round_answered"]),
        nonce=_nonce(row),
        clock_id=row["round_clock_id"] or "",
    )


def _number(stored: object) -> int:
    # What is no number is mended by the next question and its answer.
    return stored if isinstance(stored, int) else 0


def _nonce(row: Any) -> Optional[IssuedNonce]:
    """Return the nonce that is out; one that cannot be read is replaced by the next challenge."""
    if row["round_nonce"] is None:
        return None
    try:
        nonce = bytes.fromhex(row["round_nonce"])
        banks = json.loads(row["round_selection"])
        selection = {bank: tuple(indices) for bank, indices in banks.items()}
        lifetime_ms = row["round_end_ms"] - row["round_born_ms"]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return IssuedNonce(
        challenge=evidence.Challenge(nonce, selection, lifetime_ms),
        host_name=row["round_host_name"],
        born_ms=row["round_born_ms"],
        end_ms=row["round_end_ms"],
    )
