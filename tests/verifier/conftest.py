# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A verifier with a store, an authority and a clock of the test's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.main import main
from ovirt_tcp_plugin.verifier.store.database import Database
from tests.verifier.administrator import Administrator, Run
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server
from tests.verifier.postgresql import PostgreSql
from tests.verifier.vendor import Vendor


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    server = PostgreSql()
    yield server
    server.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `each_database` on PostgreSQL, too."""
    if "database_kind" not in metafunc.fixturenames:
        return
    if metafunc.definition.get_closest_marker("each_database"):
        metafunc.parametrize("database_kind", ["sqlite", "postgresql"])


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of SQLite with the tables of today's release and no rows: copy it."""
    path = tmp_path_factory.mktemp("migrated") / "verifier.db"
    Database(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest, database_kind: str, tmp_path: Path
) -> Iterator[str]:
    """Give the URL of a database with the tables of today's release and no rows."""
    if database_kind == "sqlite":
        path = tmp_path / "verifier.db"
        shutil.copyfile(request.getfixturevalue("migrated_file"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgreSql = request.getfixturevalue("postgresql")
    yield server.new_database()
    server.drop_databases()


@pytest.fixture
def empty_database_url(
    request: pytest.FixtureRequest, database_kind: str, tmp_path: Path
) -> Iterator[str]:
    """Give the URL of a database without tables."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'verifier.db'}"
        return
    server: PostgreSql = request.getfixturevalue("postgresql")
    yield server.empty_database()
    server.drop_databases()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture(scope="session")
def agent_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def server(
    tmp_path: Path, database: Database, authority: Authority, vendor: Vendor
) -> Iterator[Server]:
    running = Server(tmp_path, database, authority, vendor)
    yield running
    running.stop()


@pytest.fixture
def agent(server: Server, vendor: Vendor) -> Agent:
    return Agent(server, vendor).enrol()


@pytest.fixture
def admin(server: Server) -> Administrator:
    return Administrator(server)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    state = tmp_path / "state"
    options = {
        "server": {"certificate": str(state / "server.pem"), "key": str(state / "server.key")},
        "store": {"directory": str(state)},
    }
    (tmp_path / "verifier.yaml").write_text(yaml.safe_dump(options))

    def call(*arguments: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, ["--config-dir", str(tmp_path), *arguments])

    assert call("init", "--name", "verifier.example.com").exit_code == 0
    return call
