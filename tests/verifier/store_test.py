# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is acknowledged is kept, what is refused changes nothing, and one bad row hurts only its host."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.appraisal import Boot
from ovirt_tcp_plugin.verifier.store import Result, Store, Token
from tests.verifier.conftest import enrol, good_boot
from tests.verifier.software_tpm import BOOT_ID, SoftwareTpm

RESULT = Result(Level.UNTRUSTED, (Finding(7, "log_missing", "no log"),), 5, "server boot", BOOT_ID)
BOOT = Boot(BOOT_ID, 1, 2, 3)


def test_refuses_an_enrolment_token_that_was_used(store: Store) -> None:
    host = enrol(store, "host-1", SoftwareTpm(), "c1")
    with pytest.raises(errors.Refused, match="token_unknown"):
        store.enrol("token of host-1 c1", host)


def test_refuses_a_token_of_another_role_or_host(store: Store) -> None:
    host = enrol(store, "host-1", SoftwareTpm(), "c1")
    store.add_token("viewer", Token("viewer"))
    store.add_token("other", Token("enrolment", "host-2"))
    for secret in ("viewer", "other", "", "no such"):
        with pytest.raises(errors.Refused, match="token_unknown"):
            store.enrol(secret, host)
    assert store.token("other") is not None


def test_refuses_a_second_name_for_one_ek_and_keeps_its_token(store: Store) -> None:
    enrol(store, "host-1", SoftwareTpm(), "c1", "the ek")
    with pytest.raises(errors.Refused, match="ek_in_use"):
        enrol(store, "host-2", SoftwareTpm(), "c2", "the ek")
    assert store.host("host-2") is None
    assert store.token("token of host-2 c2") is not None


def test_refuses_a_second_tpm_under_a_known_name_until_it_is_removed(store: Store) -> None:
    enrol(store, "host-1", SoftwareTpm(), "c1", "first ek")
    with pytest.raises(errors.Refused, match=r"name_in_use.*host remove host-1"):
        enrol(store, "host-1", SoftwareTpm(1), "c2", "second ek")
    store.remove_host("host-1")
    enrol(store, "host-1", SoftwareTpm(1), "c3", "second ek")


def test_a_reinstalled_host_loses_its_certificate_counters_and_result(store: Store) -> None:
    enrol(store, "host-1", SoftwareTpm(), "c1", "the ek")
    store.keep_result("host-1", "c1", BOOT, RESULT)
    enrol(store, "host-1", SoftwareTpm(), "c2", "the ek")
    assert store.host_by_certificate("c1") is None
    again = store.host_by_certificate("c2")
    assert again is not None
    assert (again.boot, again.result) == (None, None)


def test_a_result_of_the_old_enrolment_comes_too_late(store: Store) -> None:
    enrol(store, "host-1", SoftwareTpm(), "c1", "the ek")
    enrol(store, "host-1", SoftwareTpm(), "c2", "the ek")
    store.keep_result("host-1", "c1", BOOT, RESULT)
    host = store.host("host-1")
    assert host is not None
    assert host.result is None


@pytest.mark.parametrize("column", ["result", "boot", "ek_public", "ak_public"])
def test_a_corrupt_row_hurts_only_its_own_host(store: Store, database: str, column: str) -> None:
    for number in (1, 2):
        enrol(store, f"host-{number}", SoftwareTpm(), f"c{number}")
        store.keep_result(f"host-{number}", f"c{number}", BOOT, RESULT)
    with sqlite3.connect(database[len("sqlite:///") :]) as connection:
        connection.execute(f"UPDATE hosts SET {column} = ? WHERE name = 'host-1'", (b'{"half',))  # noqa: S608
    with pytest.raises(errors.InvalidMessage, match="record of host host-1"):
        store.host("host-1")
    healthy = store.host("host-2")
    assert healthy is not None
    assert healthy.result == RESULT


def test_refuses_a_database_of_another_version(database: str) -> None:
    Store(database).close()
    with sqlite3.connect(database[len("sqlite:///") :]) as connection:
        connection.execute("UPDATE schema SET version = 99")
    with pytest.raises(errors.InvalidConfig, match="version 99"):
        Store(database)


def test_refuses_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(errors.InvalidConfig, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path / 'db'}")


def test_refuses_a_name_of_reference_values_that_is_taken(store: Store) -> None:
    store.add_reference_values(good_boot())
    with pytest.raises(errors.Conflict, match="golden exist already"):
        store.add_reference_values(good_boot())
    with pytest.raises(errors.NotFound, match="no set of reference values silver"):
        store.remove_reference_values("silver")


def test_keeps_what_it_acknowledged_through_kill_9(database: str) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, database], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout]
    writer.wait()
    writer.stdout.close()
    survived = Store(database).host("host-1")
    assert survived is not None
    assert survived.result is not None
    assert survived.result.born_ms >= acknowledged[-1]


_WRITER = """
import dataclasses, sys
from ovirt_tcp_plugin.verifier.store import Store
from tests.verifier.conftest import enrol
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.store_test import BOOT, RESULT
store = Store(sys.argv[1])
enrol(store, "host-1", SoftwareTpm(), "c1")
number = 0
while True:
    number += 1
    store.keep_result("host-1", "c1", BOOT, dataclasses.replace(RESULT, born_ms=number))
    print(number, flush=True)
"""


def test_gives_back_what_it_was_given(store: Store) -> None:
    host = enrol(store, "host-1", SoftwareTpm(), "c1")
    assert store.host("host-1") == host
    store.keep_result("host-1", "c1", BOOT, RESULT)
    kept = store.host_by_certificate("c1")
    assert kept is not None
    assert (kept.boot, kept.result) == (BOOT, RESULT)
    store.add_reference_values(good_boot())
    assert store.reference_values() == [good_boot()]
    assert store.token("no such") is None
    assert store.host_names() == ["host-1"]


def test_judges_nobody_without_reference_values_that_it_cannot_read(store: Store, database: str) -> None:
    store.add_reference_values(good_boot())
    with sqlite3.connect(database[len("sqlite:///") :]) as connection:
        connection.execute("UPDATE reference_values SET content = '{\"name\"'")
    with pytest.raises(errors.Unavailable, match="cannot be read"):
        store.reference_values()
