# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A verifier with a store, an authority and a clock of the test's own."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ovirt_tcp_plugin.messages import components, reference_values
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store import hosts, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import EnrolledHost
from ovirt_tcp_plugin.verifier.store.tokens import Token
from tests.verifier.postgresql import PostgreSql
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import NOW, Vendor


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.boot_id = "00000000-0000-0000-0000-000000000001"
        self.ms = 1_000_000
        self.utc = NOW

    def now_ms(self) -> int:
        return self.ms

    def wall(self) -> datetime.datetime:
        return self.utc


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    server = PostgreSql()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'verifier.db'}"
        return
    server: PostgreSql = request.getfixturevalue("postgresql")
    yield server.new_database()
    server.drop_databases()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"), NOW)


@pytest.fixture(scope="session")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture(scope="session")
def agent_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate_request(key: ec.EllipticCurvePrivateKey, name: str = "host-1") -> bytes:
    """Return a PKCS #10 request, DER."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.DER)


def enrol(
    database: Database, name: str, tpm: SoftwareTpm, certificate_digest: str, ek_digest: str = ""
) -> EnrolledHost:
    """Bind a host in the store, without the messages."""
    secret = f"token of {name} {certificate_digest}"
    database.transact(lambda c: tokens.add(c, secret, Token("enrolment", name, "id of " + name)))
    bound = EnrolledTpm20(name, tpm.ek, tpm.ak)
    host = EnrolledHost(
        bound, "id of " + name, ek_digest or f"ek of {name}", b"certificate", certificate_digest
    )
    database.transact(lambda c: hosts.enrol(c, secret, host))
    return host


def good_boot(name: str = "golden") -> ReferenceSet:
    """Return the reference values of SoftwareTpm's ordinary launch."""
    tpm = SoftwareTpm()
    return reference_values.from_boot(
        name, "sha256", components.steps(tpm.events, "sha256", (17, 18))
    )
