# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One corrupt row, whatever is in it, hurts no other host.

SQLite, which keeps anything in any column.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.tokens import _end
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store import (
    endorsements,
    references,
    results,
    schema,
    tokens,
)
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.oat_records import OEM, OatRecords
from ovirt_tcp_plugin.verifier.store.tokens import Token
from tests.verifier.agent import Agent
from tests.verifier.enrolled import good_boot
from tests.verifier.live_server import POLL, Server
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import Vendor

RUBBISH = {
    "no UTF-8": "CAST(x'7bff7d' AS TEXT)",
    "octets": "x'00ff'",
    "a number": "7",
    "half a text": "'{\"half'",
    "nested deeply": "'" + "[" * 100_000 + "'",
    "NUL": "CAST(x'6100' AS TEXT)",
}
KEYS = {schema.hosts: "name", schema.rounds: "host_name", schema.results: "host_name"}


class Pair:
    """A host whose row is spoilt, and another one."""

    def __init__(self, server: Server, vendor: Vendor) -> None:
        self.server, self.viewer, self.policy = (
            server,
            server.token("viewer"),
            server.token("policy"),
        )
        self.session = requests.Session()
        self.session.trust_env, self.session.verify = False, str(server.directory / "ca.pem")
        self.bad = Agent(server, vendor).enrol()
        self.good = Agent(server, vendor, "host-2", SoftwareTpm(1)).enrol()
        for one in (self.bad, self.good):
            assert one.answer(one.challenge()).json()["level"] == "trusted"

    def spoil(self, connection: Connection, table: sa.Table, column: str, rubbish: str) -> None:
        # The reference values change, so that everybody is judged again, too.
        references.put(connection, dataclasses.replace(good_boot(), name="other"))
        key = KEYS[table]
        edit = f"UPDATE {table.name} SET {column} = {rubbish} WHERE {key} = 'host-1'"  # noqa: S608
        connection.execute(sa.text(edit))

    def check(self) -> None:
        listed = self.ask("GET", "/v1/hosts", self.viewer)["hosts"]
        assert {one["host_name"]: one["level"] for one in listed}["host-2"] == "trusted"
        names = {"hosts": ["host-1", "host-2"]}
        told = self.ask(
            "POST", POLL, self.viewer, {**names, "timeThreshold": 60_000, "PCRmask": "FFFFFF"}
        )
        assert told["hosts"][1]["trust_lvl"] == "trusted"
        told = self.ask(
            "POST", "/v1/results", self.viewer, {**names, "max_age_ms": 60_000, "wait_ms": 0}
        )
        assert told["hosts"][1]["level"] == "trusted"
        assert self.ask("POST", "/v1/reference-preview", self.policy, {}) == {"changes": []}
        message = {"boot_id": self.bad.tpm.boot_id, "wait_ms": 0}
        assert (
            self.server.call(
                "POST", "/v1/challenge", message, cert=self.bad.certificate
            ).status_code
            < 500
        )

    def ask(self, method: str, path: str, token: str, message: Any = None) -> Any:
        url, headers = (
            f"https://127.0.0.1:{self.server.port}{path}",
            {"Authorization": f"Bearer {token}"},
        )
        answer = self.session.request(method, url, json=message, headers=headers, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def pair(tmp_path: Path, authority: Authority, vendor: Vendor) -> Iterator[Pair]:
    database = Database(f"sqlite:///{tmp_path / 'verifier.db'}")
    server = Server(tmp_path, database, authority, vendor, poll_deadline=0.01)
    server.choose_good_boot()
    made = Pair(server, vendor)
    yield made
    made.session.close()
    server.stop()
    database.close()


@pytest.mark.parametrize("table", [pytest.param(one, id=one.name) for one in KEYS])
def test_a_corrupt_field_hurts_no_other_host(pair: Pair, table: sa.Table) -> None:
    own = table.c[KEYS[table]]
    transact = pair.server.database.transact
    whole = transact(
        lambda c: dict(c.execute(sa.select(table).where(own == "host-1")).mappings().one())
    )

    def restore(connection: Connection) -> None:
        connection.execute(sa.delete(table).where(own != "host-2"))
        connection.execute(sa.insert(table).values(**whole))

    for column in table.c:
        for what, rubbish in RUBBISH.items():
            transact(
                lambda c, column=column, rubbish=rubbish: pair.spoil(c, table, column.name, rubbish)
            )
            try:
                pair.check()
            except AssertionError as e:
                raise AssertionError(f"{table.name}.{column.name} is {what}") from e
            transact(restore)


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a row of a table is made, and how all are read."""

    add: Callable[[Connection, str], object]
    every: Callable[[Connection], Iterable[str]]


KINDS: Mapping[sa.Table, Kind] = {
    schema.tokens: Kind(
        lambda c, name: tokens.add(c, name, Token("viewer", note=name)),
        lambda c: [
            f"{_end(token.end_s):20} {token.role:9} {token.note}"
            for token in tokens.every(c).values()
        ],
    ),
    schema.registered_eks: Kind(
        lambda c, name: endorsements.add(c, f"ek of {name}", name),
        lambda c: [f"{digest}  {host}" for host, digest in endorsements.every(c)],
    ),
    schema.reference_sets: Kind(
        lambda c, name: references.put(c, dataclasses.replace(good_boot(), name=name)),
        lambda c: [one.name for one in references.load(c).sets],
    ),
    schema.oat_records: Kind(
        lambda c, name: OatRecords(c, OEM).put({"Name": name}, name),
        lambda c: [record["Name"] for record in OatRecords(c, OEM).every()],
    ),
}


@pytest.mark.parametrize("table", [pytest.param(one, id=one.name) for one in KINDS])
def test_a_corrupt_row_hides_no_other(tmp_path: Path, table: sa.Table) -> None:
    database, kind = Database(f"sqlite:///{tmp_path / 'verifier.db'}"), KINDS[table]

    def read(connection: Connection, column: str, rubbish: str) -> str:
        connection.execute(sa.delete(table))
        kind.add(connection, "spoilt")
        connection.execute(sa.text(f"UPDATE {table.name} SET {column} = {rubbish}"))  # noqa: S608
        kind.add(connection, "good")
        return " ".join(kind.every(connection))

    for column in table.c:
        for what, rubbish in RUBBISH.items():
            told = database.transact(
                lambda c, column=column, rubbish=rubbish: read(c, column.name, rubbish)
            )
            assert "good" in told, f"{table.name}.{column.name} is {what}"
    database.close()


def test_a_corrupt_row_raises_an_alarm(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    pair.server.database.transact(
        lambda c: pair.spoil(c, schema.results, "boot", RUBBISH["octets"])
    )
    with caplog.at_level("ERROR"):
        assert (
            "unreadable_records 1.0" in pair.server.call("GET", "/metrics", token=pair.viewer).text
        )
    assert "record unreadable host=host-1" in caplog.text


OTHER_BOOT = "99999999-2222-3333-4444-555555555555"


def test_one_flipped_bit_in_what_was_measured_takes_no_other_host_out(
    server: Server, vendor: Vendor, agent: Agent
) -> None:
    server.choose_good_boot()
    agent.report()
    Agent(server, vendor, "host-2", SoftwareTpm(1)).enrol().report()
    kept = server.database.transact(lambda c: results.measured(c, ["host-1"]))["host-1"]
    broken = kept.replace('"17": "', '"17": "q')
    bad = (
        sa.update(schema.results)
        .where(schema.results.c.host_name == "host-1")
        .values(measured=broken)
    )
    server.database.transact(lambda c: c.execute(bad))
    server.database.transact(
        lambda c: references.put(c, dataclasses.replace(good_boot(), name="unrelated"))
    )
    known = server.call("GET", "/v1/hosts", token=server.token("viewer")).json()["hosts"]
    assert {host["host_name"]: host["level"] for host in known} == {
        "host-1": "unknown",
        "host-2": "trusted",
    }


def test_a_corrupt_round_does_not_lock_its_host_out(server: Server, agent: Agent) -> None:
    server.choose_good_boot()
    assert agent.challenge() is not None
    server.database.transact(
        lambda c: c.execute(sa.update(schema.rounds).values(selection='{"sha256": [17'))
    )
    agent.tpm.boot_id = OTHER_BOOT
    assert agent.report()["level"] == "trusted"
