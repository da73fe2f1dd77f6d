# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Databases of every revision, with data, become those of this release and lose nothing.

`released/REVISION.json` has the rows of a site with a trusted and an untrusted host, and the
authority that encrypted its verdict key: a throw-away one of this fixture. A new migration adds a
file; those that are there never change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier import local_store, signing
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.signing import Signer
from ovirt_tcp_plugin.verifier.store import (
    authorities,
    endorsements,
    hosts,
    migrations,
    references,
    results,
    tokens,
    transfer,
    verdict_keys,
)
from ovirt_tcp_plugin.verifier.store.database import Database, load_backup
from ovirt_tcp_plugin.verifier.store.transfer import Rows

pytestmark = pytest.mark.each_database

RELEASED = Path(__file__).parent / "released"
REVISIONS = sorted(path.stem for path in RELEASED.glob("*.json"))


def released(revision: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads((RELEASED / f"{revision}.json").read_text())
    return content


def parts_of(content: Mapping[str, Any]) -> list[Rows]:
    return [Rows(table, rows) for table, rows in content["tables"].items()]


def make_as_released(url: str, revision: str) -> None:
    """Make a database as a server of that revision left it."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"), future=True)
    migrations.upgrade(engine, revision)
    with engine.begin() as connection:
        transfer.load(connection, parts_of(released(revision)))
    engine.dispose()


def authority_of(directory: Path, content: Mapping[str, Any]) -> Authority:
    for name in ("ca.key", "ca.pem"):
        durable.replace(directory / name, content[name].encode("ascii"))
    return Authority.load(directory)


def check(database: Database, ca: Authority, content: Mapping[str, Any]) -> None:
    """Compare what a database says with the rows that were put in."""
    assert database.transact(hosts.names) == ["host-1", "host-2"]
    for row in content["tables"]["hosts"]:
        snapshot = database.transact(
            lambda c, row=row: hosts.by_certificate(c, row["certificate_digest"])
        )
        assert snapshot is not None
        assert snapshot.host.name == row["name"]
        assert snapshot.host.ek_digest == row["ek_digest"]
        assert isinstance(snapshot.result, results.Result)
    stored = database.transact(results.of_all)
    levels = [getattr(stored[name], "level", None) for name in ("host-1", "host-2")]
    assert levels == [Level.TRUSTED, Level.UNTRUSTED]
    values = database.transact(references.load)
    assert values.unreadable == ()
    assert [known.name for known in values.sets] == ["golden"]
    assert values.sets[0].host_names is None
    assert database.transact(endorsements.every) == [("host-5", "e" * 64)]
    broker = database.transact(lambda c: tokens.find(c, "of the broker"))
    assert broker is not None
    assert broker.role == "viewer"
    local_store.claim(database, ca)
    Signer(database, ca, Clock())
    if "verdict_keys" in content["tables"]:
        (row,) = content["tables"]["verdict_keys"]
        active = database.transact(verdict_keys.active)
        assert active is not None
        assert active.key_id == row["key_id"]
        key = signing._private_key(active, ca)
        assert ear.key_id(key.public_key()) == row["key_id"]


def test_every_revision_has_its_data_here() -> None:
    config = Config()
    config.set_main_option("script_location", "ovirt_tcp_plugin.verifier.store:migrations")
    scripts = ScriptDirectory.from_config(config)
    assert sorted(script.revision for script in scripts.walk_revisions()) == REVISIONS
    assert scripts.get_current_head() == migrations.NEWEST


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_each_revision_is_upgraded_with_its_data(
    empty_database_url: str, tmp_path: Path, revision: str
) -> None:
    make_as_released(empty_database_url, revision)
    content = released(revision)
    database = Database(empty_database_url)
    check(database, authority_of(tmp_path, content), content)
    digest = content["tables"]["hosts"][0]["certificate_digest"]
    database.transact(lambda c: hosts.see(c, digest, 77))
    assert 77 in database.transact(hosts.certificate_ends).values()
    database.close()


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_backup_of_each_revision_is_restored(tmp_path: Path, revision: str) -> None:
    content = released(revision)
    url = f"sqlite:///{tmp_path / 'v.db'}"
    load_backup(url, revision, lambda: parts_of(content), [])
    database = Database(url)
    check(database, authority_of(tmp_path, content), content)
    stored = database.transact(results.of_all)
    clocks = {getattr(result, "clock_id", None) for result in stored.values()}
    assert clocks == {results.VOID}
    database.close()


def test_another_authority_is_still_refused(tmp_path: Path) -> None:
    content = released(migrations.NEWEST)
    url = f"sqlite:///{tmp_path / 'v.db'}"
    load_backup(url, migrations.NEWEST, lambda: parts_of(content), [])
    database = Database(url)
    digest = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(errors.Conflict, match="another authority"):
        database.transact(lambda c: authorities.claim(c, [digest]))
    database.close()
