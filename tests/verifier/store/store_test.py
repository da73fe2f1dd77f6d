# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is acknowledged is kept, and what is refused changes nothing.

One bad row hurts only its host.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import evidence, reference_values
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.tokens import new_secret
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.store import (
    authorities,
    challenges,
    hosts,
    references,
    results,
    schema,
    tokens,
)
from ovirt_tcp_plugin.verifier.store import database as store
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.results import Result
from ovirt_tcp_plugin.verifier.store.tokens import Token
from tests.verifier.appraisal.boot_steps import digest
from tests.verifier.enrolled import enrol, good_boot
from tests.verifier.postgresql import PostgreSql
from tests.verifier.software_tpm import BOOT_ID, SoftwareTpm

pytestmark = pytest.mark.each_database

ROOT = Path(__file__).parents[3]
BOOT = BootCounters(BOOT_ID, 1, 2, 3)
CLOCK_ID = "00000000-0000-0000-0000-000000000001"
RESULT = Result(
    Level.UNTRUSTED,
    (Finding(7, "log_missing", "no log"),),
    CLOCK_ID,
    5,
    BOOT,
    BOOT_ID,
    1,
    "2.0",
    {"txt": "a" * 64},
    "17,18",
)
NONCE = IssuedNonce(evidence.Challenge(b"n" * 32, {"sha256": (17, 18)}, 100), "host-1", 1000, 1100)


def keep(
    database: Database, name: str = "host-1", certificate: str = "c1", result: Result = RESULT
) -> bool:
    return database.transact(lambda c: results.keep(c, name, certificate, result, "{}"))


def spoil(database: Database, table: str, key: str, column: str) -> None:
    """Put rubbish into one field, as a bad disk or a bad hand would."""
    statement = sa.text(f"UPDATE {table} SET {column} = :rubbish WHERE {key} = 'host-1'")  # noqa: S608
    binary = column.endswith("public")
    database.transact(
        lambda c: c.execute(statement, {"rubbish": b'{"half' if binary else '{"half'})
    )


class TestEnrolment:
    def test_refuses_a_token_that_was_used_but_to_the_same_chip(self, database: Database) -> None:
        host = enrol(database, "host-1", SoftwareTpm(), "c1")
        again = dataclasses.replace(host, certificate_digest="c2")
        assert not database.transact(lambda c: hosts.enrol(c, "token of host-1 c1", again))
        assert database.transact(lambda c: hosts.by_certificate(c, "c2")) is not None
        tpm = SoftwareTpm(1)
        other = dataclasses.replace(again, tpm=EnrolledTpm20("host-1", host.tpm.ek, tpm.ak))
        with pytest.raises(errors.Refused, match="token_unknown"):
            database.transact(lambda c: hosts.enrol(c, "token of host-1 c1", other))

    def test_refuses_a_token_of_another_role_or_host(self, database: Database) -> None:
        first = enrol(database, "host-1", SoftwareTpm(), "c1")
        reinstalled = EnrolledTpm20("host-1", first.tpm.ek, SoftwareTpm(1).ak)
        host = dataclasses.replace(first, tpm=reinstalled)
        database.transact(lambda c: tokens.add(c, "viewer", Token("viewer")))
        database.transact(lambda c: tokens.add(c, "other", Token("enrolment", "host-2")))
        for secret in ("viewer", "other", "", "no such"):
            with pytest.raises(errors.Refused, match="token_unknown"):
                database.transact(lambda c, secret=secret: hosts.enrol(c, secret, host))
        assert database.transact(lambda c: tokens.find(c, "other")) is not None

    def test_refuses_a_second_name_for_one_ek_and_keeps_its_token(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1", "the ek")
        with pytest.raises(errors.Refused, match="ek_in_use"):
            enrol(database, "host-2", SoftwareTpm(), "c2", "the ek")
        assert database.transact(lambda c: hosts.find(c, "host-2")) is None
        assert database.transact(lambda c: tokens.find(c, "token of host-2 c2")) is not None

    def test_refuses_a_second_tpm_under_a_known_name_until_it_is_removed(
        self, database: Database
    ) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1", "first ek")
        with pytest.raises(errors.Refused, match=r"name_in_use.*replace-tpm host-1"):
            enrol(database, "host-1", SoftwareTpm(1), "c2", "second ek")
        database.transact(lambda c: hosts.remove(c, "host-1"))
        enrol(database, "host-1", SoftwareTpm(1), "c3", "second ek")

    def test_a_reinstalled_host_loses_its_certificate_counters_and_result(
        self, database: Database
    ) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1", "the ek")
        keep(database)
        enrol(database, "host-1", SoftwareTpm(), "c2", "the ek")
        assert database.transact(lambda c: hosts.by_certificate(c, "c1")) is None
        assert database.transact(lambda c: hosts.by_certificate(c, "c2")) is not None
        assert database.transact(lambda c: results.find(c, "host-1")) is None

    def test_a_result_of_the_old_enrolment_comes_too_late(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1", "the ek")
        enrol(database, "host-1", SoftwareTpm(), "c2", "the ek")
        assert not keep(database, certificate="c1")
        assert database.transact(lambda c: results.find(c, "host-1")) is None

    def test_a_renewed_certificate_shuts_out_the_old_one_once_it_is_seen(
        self, database: Database
    ) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        database.transact(lambda c: hosts.renew(c, "host-1", "c1", "c2"))
        for shown in ("c1", "c2"):
            assert (
                database.transact(lambda c, shown=shown: hosts.by_certificate(c, shown)) is not None
            )
        database.transact(lambda c: hosts.see(c, "c2", 7))
        assert database.transact(hosts.certificate_ends) == {"host-1": 7}
        assert database.transact(lambda c: hosts.by_certificate(c, "c1")) is None
        assert database.transact(lambda c: hosts.by_certificate(c, "c2")) is not None
        with pytest.raises(errors.Refused, match="enrolment_unknown"):
            database.transact(lambda c: hosts.renew(c, "host-1", "c1", "c3"))

    def test_a_token_is_removed_by_what_it_is_called_in_public(self, database: Database) -> None:
        for secret in ("mine", "other"):
            database.transact(
                lambda c, secret=secret: tokens.add(c, secret, Token("viewer", note=secret))
            )
        known = database.transact(tokens.every)
        (mine,) = (identifier for identifier, token in known.items() if token.note == "mine")
        for wrong in ("", "%", mine[:11], "000000000000"):
            with pytest.raises(errors.NotFound):
                database.transact(lambda c, wrong=wrong: tokens.remove(c, wrong))
        database.transact(lambda c: tokens.remove(c, mine))
        assert [token.note for token in database.transact(tokens.every).values()] == ["other"]
        assert database.transact(lambda c: tokens.find(c, "mine")) is None

    def test_forgets_tokens_that_ended(self, database: Database) -> None:
        database.transact(lambda c: tokens.add(c, "old", Token("enrolment", "host-1", end_s=10)))
        database.transact(lambda c: tokens.add(c, "young", Token("enrolment", "host-1", end_s=30)))
        database.transact(lambda c: tokens.forget_ended(c, 20))
        found = [
            database.transact(lambda c, secret=secret: tokens.find(c, secret))
            for secret in ("old", "young")
        ]
        assert [one is None for one in found] == [True, False]

    def test_refuses_a_server_with_another_authority(self, database: Database) -> None:
        for _ in range(2):
            database.transact(lambda c: authorities.claim(c, ["ours"]))
        with pytest.raises(errors.Conflict, match="copy ca.pem and ca.key"):
            database.transact(lambda c: authorities.claim(c, ["theirs"]))


HOST = "192.0.2.7"
THIEF = "198.51.100.9"


def issue(database: Database, address: str = HOST, wall_ms: int = 0) -> bool:
    return database.transact(lambda c: challenges.issue(c, NONCE, CLOCK_ID, address, wall_ms))


def answer(database: Database, address: str = HOST) -> bool:
    return database.transact(lambda c: challenges.answer(c, "host-1", b"n" * 32, address))


class TestRounds:
    def test_a_nonce_is_taken_back_once(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        assert issue(database)
        taken = [
            database.transact(lambda c: challenges.take(c, "host-1", b"n" * 32)) for _ in range(2)
        ]
        assert taken == [True, False]

    def test_a_nonce_of_another_host_is_not_taken(self, database: Database) -> None:
        for number in (1, 2):
            enrol(database, f"host-{number}", SoftwareTpm(), f"c{number}")
        assert issue(database)
        assert not database.transact(lambda c: challenges.take(c, "host-2", b"n" * 32))

    def test_what_is_out_is_known_to_every_server(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        assert issue(database)
        out = database.transact(lambda c: challenges.find(c, "host-1"))
        assert out is not None
        assert (out.nonce, out.clock_id) == (NONCE, CLOCK_ID)

    def test_an_answer_counts_for_the_questions_before_its_challenge(
        self, database: Database
    ) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        assert database.transact(lambda c: challenges.ask(c, ["host-1", "nobody"])) == {"host-1": 1}
        assert database.transact(challenges.outstanding) == ["host-1"]
        assert issue(database)
        assert database.transact(challenges.outstanding) == ["host-1"]
        database.transact(challenges.ask_all)
        assert answer(database)
        assert database.transact(lambda c: challenges.answered(c, ["host-1"])) == {"host-1": 1}
        assert database.transact(challenges.outstanding) == ["host-1"]
        assert issue(database)
        assert answer(database)
        assert database.transact(challenges.outstanding) == []

    def test_a_poll_from_elsewhere_does_not_void_the_nonce_at_the_hosts_address(
        self, database: Database
    ) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        assert issue(database, HOST, 0)
        assert answer(database, HOST)
        assert issue(database, HOST, 1000)
        assert not issue(database, THIEF, 1001)
        assert not issue(database, THIEF, 15_999)
        assert issue(database, THIEF, 16_000)
        assert issue(database, HOST, 16_001)
        assert answer(database, HOST)

    def test_who_shows_no_evidence_loses_the_nonce_to_another_address(
        self, database: Database
    ) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        assert issue(database, THIEF, 0)
        assert not issue(database, HOST, 2999)
        assert issue(database, THIEF, 2999), "its second one"
        assert issue(database, HOST, 3000)
        assert not issue(database, THIEF, 5999)
        assert answer(database, HOST)

    def test_a_wall_clock_that_is_set_back_blocks_nobody(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        assert issue(database, THIEF, 3_600_000)
        assert issue(database, HOST, 0)

    def test_a_nonce_is_dropped_for_its_holder_only(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        assert issue(database, HOST)
        database.transact(lambda c: challenges.drop(c, "host-1", THIEF))
        assert answer(database, HOST)
        assert issue(database, HOST)
        database.transact(lambda c: challenges.drop(c, "host-1", HOST))
        assert not answer(database, HOST)

    def test_ten_thousand_hosts_are_asked_at_once(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        names = [f"nobody-{number}" for number in range(9999)] + ["host-1"]
        assert database.transact(lambda c: challenges.ask(c, names)) == {"host-1": 1}


class TestResults:
    def test_a_result_survives_its_row(self, database: Database) -> None:
        host = enrol(database, "host-1", SoftwareTpm(), "c1")
        assert database.transact(lambda c: hosts.find(c, "host-1")) == host
        keep(database)
        keep(database, result=dataclasses.replace(RESULT, born_ms=6))
        assert database.transact(lambda c: results.find(c, "host-1")) == dataclasses.replace(
            RESULT, born_ms=6
        )
        assert database.transact(lambda c: results.measured(c, ["host-1"])) == {"host-1": "{}"}

    def test_a_host_without_a_result_is_known_all_the_same(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        assert database.transact(lambda c: results.of_hosts(c, ["nobody", "host-1"])) == {
            "host-1": None
        }
        assert database.transact(results.of_all) == {"host-1": None}

    def test_judging_again_never_overwrites_newer_evidence(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        newer = dataclasses.replace(RESULT, born_ms=9)
        keep(database, result=newer)
        trusted = dataclasses.replace(RESULT, level=Level.TRUSTED, findings=(), reference_version=2)
        database.transact(lambda c: results.reappraise(c, "host-1", RESULT, trusted))
        assert database.transact(lambda c: results.find(c, "host-1")) == newer
        database.transact(
            lambda c: results.reappraise(
                c, "host-1", newer, dataclasses.replace(trusted, born_ms=9)
            )
        )
        assert database.transact(lambda c: results.find(c, "host-1")) == dataclasses.replace(
            trusted, born_ms=9
        )


class TestCorruptRows:
    @pytest.mark.parametrize("column", ["level", "findings", "boot"])
    def test_a_corrupt_result_hurts_only_its_own_host(
        self, database: Database, column: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in (1, 2):
            enrol(database, f"host-{number}", SoftwareTpm(), f"c{number}")
            keep(database, f"host-{number}", f"c{number}")
        spoil(database, "results", "host_name", column)
        found = database.transact(lambda c: results.of_hosts(c, ["host-1", "host-2"]))
        assert isinstance(found["host-1"], errors.InvalidMessage)
        assert found["host-2"] == RESULT
        assert "record unreadable host=host-1" in caplog.text

    @pytest.mark.parametrize("column", ["ek_public", "ak_public", "tpm_family"])
    def test_a_corrupt_identity_hurts_only_its_own_host(
        self, database: Database, column: str
    ) -> None:
        for number in (1, 2):
            enrol(database, f"host-{number}", SoftwareTpm(), f"c{number}")
        spoil(database, "hosts", "name", column)
        with pytest.raises(errors.InvalidMessage, match="record of host host-1"):
            database.transact(lambda c: hosts.find(c, "host-1"))
        with pytest.raises(errors.InvalidMessage, match="record of host host-1"):
            database.transact(lambda c: hosts.by_certificate(c, "c1"))
        assert database.transact(lambda c: hosts.find(c, "host-2")) is not None
        assert database.transact(lambda c: hosts.by_certificate(c, "c2")) is not None

    def test_an_error_of_the_driver_is_told_as_any_other(self, database: Database) -> None:
        enrol(database, "host-1", SoftwareTpm(), "c1")
        database.transact(lambda c: c.exec_driver_sql("ALTER TABLE policy RENAME TO gone"))
        with pytest.raises(errors.Unavailable):
            asyncio.run(database.read(lambda c: hosts.by_certificate(c, "c1")))
        database.transact(lambda c: c.exec_driver_sql("ALTER TABLE gone RENAME TO policy"))
        state = asyncio.run(database.read(lambda c: hosts.by_certificate(c, "c1")))
        assert state is not None and state.host.name == "host-1"

    def test_a_corrupt_set_of_reference_values_is_named(self, database: Database) -> None:
        database.transact(lambda c: references.put(c, good_boot("silver")))
        database.transact(lambda c: references.put(c, good_boot("host-1")))
        spoil(database, "reference_sets", "name", "content")
        policy = database.transact(references.load)
        assert policy.unreadable == ("host-1",)
        assert policy.sets == (good_boot("silver"),)


class TestReferenceValues:
    def test_every_change_moves_the_version_on(self, database: Database) -> None:
        versions = [database.transact(references.version)]
        for change in (
            lambda c: references.put(c, good_boot()),
            references.hold,
            lambda c: references.remove(c, "golden"),
        ):
            database.transact(change)
            versions.append(database.transact(references.version))
        assert versions == sorted(set(versions))

    def test_only_what_is_there_is_removed(self, database: Database) -> None:
        with pytest.raises(errors.NotFound, match="no set of reference values silver"):
            database.transact(lambda c: references.remove(c, "silver"))


class TestDatabase:
    def test_refuses_one_of_a_newer_release(self, database_url: str) -> None:
        database = Database(database_url)
        database.transact(
            lambda c: c.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        )
        database.close()
        with pytest.raises(errors.InvalidConfig, match="9999"):
            Database(database_url)

    @pytest.mark.parametrize(
        "url",
        ["mysql://x/y", "rubbish", "postgresql://x@127.0.0.1:1/none", "sqlite:////no/such/dir/x"],
    )
    def test_refuses_what_is_no_database(self, url: str) -> None:
        with pytest.raises(errors.InvalidConfig):
            Database(url)

    def test_refuses_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "db").write_bytes(b"rubbish" * 1000)
        with pytest.raises(errors.InvalidConfig, match="cannot be opened"):
            Database(f"sqlite:///{tmp_path / 'db'}")

    def test_the_migrations_make_the_tables_that_the_code_uses(self, database: Database) -> None:
        def differences(connection: sa.engine.Connection) -> list[object]:
            return compare_metadata(MigrationContext.configure(connection), schema.metadata)

        assert database.transact(differences) == []

    def test_work_that_fails_undoes_only_itself(self, database: Database) -> None:
        def fail(connection: sa.engine.Connection) -> None:
            tokens.add(connection, "half", Token("viewer"))
            raise errors.Conflict("no")

        def break_sql(connection: sa.engine.Connection) -> None:
            connection.execute(sa.text("SELECT * FROM nowhere"))

        works: list[Callable[[sa.engine.Connection], object]] = [
            lambda c: tokens.add(c, "first", Token("viewer")),
            fail,
            break_sql,
            lambda c: tokens.add(c, "last", Token("viewer")),
        ]

        async def write_all() -> list[object]:
            return await asyncio.gather(
                *(database.write(work) for work in works), return_exceptions=True
            )

        outcomes = asyncio.run(write_all())
        assert [type(one) for one in outcomes] == [
            type(None),
            errors.Conflict,
            errors.Unavailable,
            type(None),
        ]
        kept = [
            database.transact(lambda c, s=s: tokens.find(c, s)) for s in ("first", "half", "last")
        ]
        assert [one is not None for one in kept] == [True, False, True]

    def test_keeps_what_it_acknowledged_through_kill_9(self, database_url: str) -> None:
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, database_url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout]
        writer.wait(10)
        writer.stdout.close()
        database = Database(database_url)
        survived = database.transact(lambda c: results.find(c, "host-1"))
        database.close()
        assert isinstance(survived, Result)
        assert survived.born_ms >= acknowledged[-1]


_WRITER = """
import dataclasses, sys
from ovirt_tcp_plugin.verifier.store.database import Database
from tests.verifier.enrolled import enrol
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.store.store_test import RESULT, keep
database = Database(sys.argv[1])
enrol(database, "host-1", SoftwareTpm(), "c1")
number = 0
while True:
    number += 1
    keep(database, result=dataclasses.replace(RESULT, born_ms=number))
    print(number, flush=True)
"""


def test_who_cannot_write_beside_a_neighbour_is_told_and_writes_when_he_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WITHIN_S", 0.2)
    database = Database(f"sqlite:///{tmp_path / 'verifier.db'}")
    neighbour = sqlite3.connect(tmp_path / "verifier.db", isolation_level=None)
    neighbour.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.Unavailable):
        database.transact(lambda c: tokens.add(c, "secret", Token("viewer")))
    neighbour.execute("ROLLBACK")
    database.transact(lambda c: tokens.add(c, "secret", Token("viewer")))
    assert database.transact(lambda c: tokens.find(c, "secret")) == Token("viewer")
    neighbour.close()
    database.close()


def test_one_bad_piece_of_work_undoes_only_itself(database: Database) -> None:
    async def write() -> list[Any]:
        first = database.write(lambda c: time.sleep(0.1))  # so that the others share a transaction
        work = [
            functools.partial(tokens.add, secret=f"good {n}", token=Token("viewer"))
            for n in range(3)
        ]
        bad = functools.partial(tokens.add, secret="bad", token=Token("enrolment", "host-1", "\0"))
        return await asyncio.gather(
            first, *map(database.write, (*work, bad)), return_exceptions=True
        )

    assert asyncio.run(write())[1:4] == [None] * 3


def test_a_set_that_could_not_be_read_again_is_not_kept(database: Database) -> None:
    many = reference_values.from_boot(
        "golden", "sha256", [Step(17, f"module_{n}", digest(str(n))) for n in range(4097)]
    )
    with pytest.raises(errors.Conflict, match="cannot be kept"):
        database.transact(lambda c: references.put(c, many))
    assert database.transact(references.load).sets == ()


def test_two_servers_do_not_lock_each_other_out(postgresql: PostgreSql) -> None:
    one, two = (Database(url) for url in [postgresql.new_database()] * 2)
    names = [f"host-{n}" for n in range(1000)]
    rows = [{"host_name": name, "asked": 0, "issued": 0, "answered": 0} for name in names]
    one.transact(lambda c: c.execute(sa.insert(schema.rounds), rows))
    drawn = random.Random(1)

    async def ask() -> None:
        for _ in range(40):
            await one.write(lambda c: challenges.ask(c, names))

    async def issue() -> None:
        for _ in range(40):
            challenge = evidence.Challenge(drawn.randbytes(32), {"sha256": (17, 18)}, 15_000)
            nonces = [IssuedNonce(challenge, name, 0, 15_000) for name in drawn.sample(names, 60)]
            await asyncio.gather(
                *(two.write(lambda c, n=n: challenges.issue(c, n, "boot", HOST, 0)) for n in nonces)
            )

    async def both() -> None:
        await asyncio.gather(ask(), issue())

    try:
        asyncio.run(both())  # Unavailable would be a deadlock
    finally:
        one.close()
        two.close()
        postgresql.drop_databases()


def test_however_often_a_host_is_asked_and_reports_each_table_keeps_one_row_of_it(
    database: Database,
) -> None:
    enrol(database, "host-1", SoftwareTpm(), "c1")
    for number in range(50):
        database.transact(lambda c: challenges.ask(c, ["host-1"]))
        database.transact(lambda c: challenges.issue(c, NONCE, CLOCK_ID, HOST, 0))
        database.transact(lambda c: challenges.answer(c, "host-1", b"n" * 32, HOST))
        keep(database, result=dataclasses.replace(RESULT, born_ms=number))

    tables = [schema.hosts, schema.rounds, schema.results]
    counts = [
        database.transact(
            lambda c, table=table: c.execute(  # type: ignore[misc]
                sa.select(sa.func.count()).select_from(table)
            ).scalar()
        )
        for table in tables
    ]
    assert counts == [1, 1, 1]


def test_no_table_holds_a_token_itself(database: Database) -> None:
    secret = new_secret()
    database.transact(lambda c: tokens.add(c, secret, Token("viewer", note="the broker")))

    rows = database.transact(lambda c: c.execute(sa.select(schema.tokens)).all())

    assert len(rows) == 1
    assert secret not in str(rows)
    assert len(secret) >= 32
    assert new_secret() != secret
