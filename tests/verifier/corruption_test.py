# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One corrupt row, whatever is in it, hurts no other host.

SQLite, which keeps anything in any column.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
import yaml
from click.testing import CliRunner
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.tokens import _end
from ovirt_tcp_plugin.verifier import relay, service
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.main import main
from ovirt_tcp_plugin.verifier.metrics import VerifierMetrics
from ovirt_tcp_plugin.verifier.signing import Signer
from ovirt_tcp_plugin.verifier.store import (
    bad_rows,
    endorsements,
    hosts,
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
from tests.verifier.live_server import POLL, Server, level_of
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import Vendor

RUBBISH = {
    "no UTF-8": "CAST(x'7bff7d' AS TEXT)",
    "octets": "x'00ff'",
    "a number": "7",
    "half a text": "'{\"half'",
    "nested deeply": "'" + "[" * 100_000 + "'",
    "NUL": "CAST(x'6100' AS TEXT)",
    "NULL": "NULL",
    "negative": "-1",
    "a fraction": "0.5",
    "infinite": "9e999",
    "the highest number": "9223372036854775807",
    "no number in JSON": "'[NaN]'",
    "JSON of another kind": "'{\"banks\": 7}'",
    "empty": "''",
    "long": "CAST(zeroblob(1000000) AS TEXT)",
}
KEYS = {schema.hosts: "name", schema.rounds: "host_name", schema.results: "host_name"}
WAIT_MS = 30


class Pair:
    """A host whose row is spoilt, and another one.

    Args:
        servers: on one database; the hosts' agents are at the first, clients at the last.
    """

    def __init__(self, servers: Sequence[Server], vendor: Vendor) -> None:
        self.servers = servers
        self.server = servers[0]
        self.asked = servers[-1]
        self.viewer = self.server.token("viewer")
        self.policy = self.server.token("policy")
        self.session = self.new_session()
        self.listening = self.new_session()
        self.bad = Agent(self.server, vendor).enrol()
        self.good = Agent(self.server, vendor, "host-2", SoftwareTpm(1)).enrol()
        for agent in (self.bad, self.good):
            assert agent.answer(agent.challenge()).json()["level"] == "trusted"

    def new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.server.directory / "ca.pem")
        return session

    def spoil(self, connection: Connection, table: sa.Table, column: str, rubbish: str) -> None:
        # The reference values change, so that everybody is judged again, too.
        references.put(connection, dataclasses.replace(good_boot(), name="other"))
        key = KEYS[table]
        edit = f"UPDATE {table.name} SET {column} = {rubbish} WHERE {key} = 'host-1'"  # noqa: S608
        connection.execute(sa.text(edit))

    def check(self) -> None:
        self.wait_for_both()
        listed = self.ask("GET", "/v1/hosts", self.viewer)["hosts"]
        assert {host["host_name"]: host["level"] for host in listed}["host-2"] == "trusted"
        names = {"hosts": ["host-1", "host-2"]}
        question = {**names, "timeThreshold": 60_000, "PCRmask": "FFFFFF"}
        told = self.ask("POST", POLL, self.viewer, question)
        assert told["hosts"][1]["trust_lvl"] == "trusted"
        question = {**names, "max_age_ms": 60_000, "wait_ms": 0}
        told = self.ask("POST", "/v1/results", self.viewer, question)
        assert told["hosts"][1]["level"] == "trusted"
        assert self.ask("POST", "/v1/reference-preview", self.policy, {})["changes"] == []
        assert self.listen(self.bad).status_code < 500
        assert all(server.is_well() for server in self.servers)
        self.server.database.transact(bad_rows.find)

    def wait_for_both(self) -> None:
        """Ask both hosts for evidence at one server while both listen at the other.

        Only the good one is known to listen: the other may be a stranger by now.
        """
        question = {"hosts": ["host-1", "host-2"], "max_age_ms": None, "wait_ms": WAIT_MS}
        with concurrent.futures.ThreadPoolExecutor() as threads:
            listening = threads.submit(self.listen, self.good, WAIT_MS)
            self.ask("POST", "/v1/results", self.viewer, question)
            assert listening.result().status_code in (200, 204)

    def listen(self, agent: Agent, wait_ms: int = 0) -> requests.Response:
        url = f"https://127.0.0.1:{self.server.port}/v1/challenge"
        message = {"boot_id": agent.tpm.boot_id, "wait_ms": wait_ms}
        return self.listening.post(url, json=message, cert=agent.certificate, timeout=10)

    def ask(self, method: str, path: str, token: str, message: Any = None) -> Any:
        url = f"https://127.0.0.1:{self.asked.port}{path}"
        headers = {"Authorization": f"Bearer {token}"}
        answer = self.session.request(method, url, json=message, headers=headers, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()


def serving_pair(
    count: int, directory: Path, url: str, authority: Authority, vendor: Vendor
) -> Iterator[Pair]:
    databases = [Database(url) for _ in range(count)]
    servers = []
    for number, database in enumerate(databases):
        place = directory / str(number)
        place.mkdir()
        servers.append(Server(place, database, authority, vendor, poll_deadline=0.01))
    servers[0].choose_good_boot()
    pair = Pair(servers, vendor)
    yield pair
    pair.session.close()
    pair.listening.close()
    for server in servers:
        server.stop()
    for database in databases:
        database.close()


@pytest.fixture
def pair(
    tmp_path: Path,
    database_url: str,
    authority: Authority,
    vendor: Vendor,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Pair]:
    monkeypatch.setattr(relay, "RELAY_INTERVAL_S", 0.005)
    yield from serving_pair(1, tmp_path, database_url, authority, vendor)


@pytest.fixture
def processes(
    tmp_path: Path,
    database_url: str,
    authority: Authority,
    vendor: Vendor,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Pair]:
    """Two servers on one database, with all that two processes of one server share."""
    monkeypatch.setattr(relay, "RELAY_INTERVAL_S", 0.005)
    yield from serving_pair(2, tmp_path, database_url, authority, vendor)


def check_column(pair: Pair, column: sa.Column[Any], names: Iterable[str]) -> None:
    """Spoil a column of one host in each of the named ways."""
    table = column.table
    own = table.c[KEYS[table]]
    transact = pair.server.database.transact
    whole = transact(
        lambda c: dict(c.execute(sa.select(table).where(own == "host-1")).mappings().one())
    )

    def restore(connection: Connection) -> None:
        connection.execute(sa.delete(table).where(own != "host-2"))
        connection.execute(sa.insert(table).values(**whole))

    for name in names:
        rubbish = RUBBISH[name]
        if rubbish == "NULL" and not column.nullable:
            continue
        transact(lambda c, rubbish=rubbish: pair.spoil(c, table, column.name, rubbish))
        try:
            pair.check()
        except AssertionError as e:
            raise AssertionError(f"{column} is {name}") from e
        transact(restore)


@pytest.mark.parametrize("table", [pytest.param(table, id=table.name) for table in KEYS])
def test_a_corrupt_field_hurts_no_other_host(pair: Pair, table: sa.Table) -> None:
    for column in table.c:
        check_column(pair, column, ["octets", "half a text", "the highest number"])


COLUMNS = [column for table in KEYS for column in table.c]


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_a_corrupt_field_ends_no_server_of_two_processes(
    processes: Pair, column: sa.Column[Any]
) -> None:
    check_column(processes, column, RUBBISH)


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
        bad_rows.find(connection)
        return " ".join(kind.every(connection))

    for column in table.c:
        for what, rubbish in RUBBISH.items():
            if rubbish == "NULL":  # every column of these must have a value
                continue
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


def test_an_answer_that_was_never_given_is_not_read_from_a_corrupt_number(processes: Pair) -> None:
    """A high number would settle every question at once, and make an old result a fresh one."""
    transact = processes.server.database.transact
    high = "UPDATE rounds SET answered = 1000 WHERE host_name = 'host-1'"
    transact(lambda c: c.execute(sa.text(high)))
    question = {"hosts": ["host-1"], "max_age_ms": None, "wait_ms": 100}

    (told,) = processes.ask("POST", "/v1/results", processes.viewer, question)["hosts"]

    assert told["level"] == "timeout"
    # And by now its numbers are mended.
    assert transact(bad_rows.find) == []
    assert processes.bad.report()["level"] == "trusted"


def test_a_result_of_a_version_that_never_was_is_judged_again(pair: Pair) -> None:
    """It would count for ever, whatever was withdrawn since."""
    transact = pair.server.database.transact
    high = "UPDATE results SET policy = 1000 WHERE host_name = 'host-1'"
    transact(lambda c: c.execute(sa.text(high)))
    transact(lambda c: references.remove(c, good_boot().name))

    assert level_of(pair.server) == "unknown"


@pytest.mark.parametrize("rubbish", ["'x'", "x'00ff'", "9e999", "9223372036854775807"])
def test_without_the_version_of_the_reference_values_nobody_is_judged_until_it_is_mended(
    pair: Pair, rubbish: str
) -> None:
    transact = pair.server.database.transact
    spoil = sa.text(f"UPDATE policy SET version = {rubbish}")  # noqa: S608
    transact(lambda c: c.execute(spoil))

    answer = pair.server.call("GET", "/v1/hosts", token=pair.viewer)

    assert answer.status_code == 503
    assert "ovirt-tcp-verifier record mend" in answer.json()["reason"]
    (row,) = transact(bad_rows.find)
    transact(lambda c: bad_rows.mend(c, row.table, row.address))
    transact(lambda c: references.remove(c, good_boot().name))
    assert level_of(pair.server, "host-2") == "unknown"


def mended(database: Database) -> list[str]:
    """Mend every row that can be; return the tables of the others."""
    left = []
    for row in database.transact(bad_rows.find):
        if row.mends:
            database.transact(
                lambda c, row=row: bad_rows.mend(c, row.table, row.address)  # type: ignore[misc]
            )
        else:
            left.append(row.table)
    return left


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_a_spoilt_host_is_good_again_once_its_row_is_mended(
    pair: Pair, column: sa.Column[Any], vendor: Vendor
) -> None:
    database = pair.server.database
    database.transact(lambda c: pair.spoil(c, column.table, column.name, RUBBISH["octets"]))

    assert mended(database) == []

    assert database.transact(bad_rows.find) == []
    agent = pair.bad
    if column.table is schema.hosts:
        database.transact(lambda c: hosts.remove(c, "host-1") if "host-1" in hosts.names(c) else 0)
        agent = Agent(pair.server, vendor).enrol()
    pair.server.judge_all()
    assert agent.report()["level"] == "trusted"


@pytest.mark.parametrize("table", ["authority", "verdict_keys"])
def test_what_only_a_person_can_put_right_is_left_to_him(
    pair: Pair, authority: Authority, table: str
) -> None:
    database = pair.server.database
    with database._engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO authority VALUES (x'00')"))
        connection.execute(sa.text("UPDATE verdict_keys SET private = x'00'"))

    rows = {row.table: row for row in database.transact(bad_rows.find)}

    assert "backup" in rows[table].next_step
    with pytest.raises(errors.Conflict, match="backup"):
        database.transact(lambda c: bad_rows.mend(c, table, rows[table].address))
    with pytest.raises(errors.InvalidConfig, match="no key that signs verdicts, or one that"):
        Signer(database, authority, Clock())


def test_a_set_that_hosts_are_judged_by_only_is_not_removed(pair: Pair) -> None:
    database = pair.server.database
    values = dataclasses.replace(good_boot(), name="oat:mle:1")
    database.transact(lambda c: references.put(c, values))
    for edit in ("content = 'x'", "content = 'x\"oat:', name = 'golden-2'", "name = x'00'"):
        spoil = f"UPDATE reference_sets SET {edit} WHERE name != 'golden'"  # noqa: S608
        database.transact(lambda c, spoil=spoil: c.execute(sa.text(spoil)))

        (row,) = database.transact(bad_rows.find)

        assert not row.mends
        assert "MLE" in row.next_step


def test_a_mended_row_is_not_found_again(pair: Pair) -> None:
    with pytest.raises(errors.NotFound):
        pair.server.database.transact(lambda c: bad_rows.mend(c, "hosts", "1"))


def test_the_commands_list_and_mend_a_row(pair: Pair, tmp_path: Path) -> None:
    pair.server.database.transact(
        lambda c: pair.spoil(c, schema.results, "boot", RUBBISH["octets"])
    )
    write_options(tmp_path)
    run = CliRunner().invoke

    listed = run(main, ["--config-dir", str(tmp_path), "record", "list"])

    assert listed.exit_code == 1
    command = re.search(r"record mend (\w+) '(\d+)', then: nothing; the host's", listed.output)
    assert command is not None
    address = [command[1], command[2]]
    mend = run(main, ["--config-dir", str(tmp_path), "record", "mend", *address])
    assert "results 'host-1' is mended" in mend.output
    again = run(main, ["--config-dir", str(tmp_path), "record", "list"])
    assert (again.exit_code, again.output) == (0, "every row can be read\n")


def write_options(directory: Path) -> None:
    store = {"url": f"sqlite:///{directory / 'verifier.db'}", "directory": str(directory)}
    (directory / "verifier.yaml").write_text(yaml.safe_dump({"store": store}))


def test_the_hourly_look_reports_bad_rows_and_survives_a_store_that_is_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "LOOK_INTERVAL_S", 0)
    database = pair.server.database
    database.transact(lambda c: pair.spoil(c, schema.results, "boot", RUBBISH["octets"]))
    metrics = VerifierMetrics()

    async def look() -> None:
        chore = asyncio.ensure_future(service._look_for_bad_rows(database, metrics))
        while not metrics.bad_row_count:
            await asyncio.wait([chore], timeout=0.05)
        monkeypatch.setattr(database, "read_long", away)
        await asyncio.wait([chore], timeout=0.05)
        assert not chore.done()
        chore.cancel()

    async def away(work: object) -> None:
        raise errors.Unavailable("the store", "its disk is gone")

    asyncio.run(look())

    assert "unreadable rows=1 tables=results: `ovirt-tcp-verifier record list`" in caplog.text
    assert "records not looked at" in caplog.text
    assert b'unreadable_rows{table="results"} 1.0' in metrics.render([], 0, {})
    assert metrics.bad_row_count == 1


def test_who_asks_about_no_host_is_told_of_bad_rows(pair: Pair) -> None:
    question = {"hosts": [], "max_age_ms": None, "wait_ms": 0}
    pair.server._context.metrics.bad_row_count = 2

    assert pair.ask("POST", "/v1/results", pair.viewer, question) == {
        "hosts": [],
        "unreadable_rows": 2,
    }
