# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the verifier keeps: tokens, enrolled hosts, their counters and results, reference values. SQL, no judgement.

Every method is one transaction; what it acknowledged survives kill -9 (SQLite in WAL mode with synchronous=FULL).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Optional

import sqlalchemy as sa

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import reference_values, tpm2
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.appraisal import Boot, EnrolledHost

SCHEMA_VERSION = 1
NEVER = 2**62

_metadata = sa.MetaData()

_schema = sa.Table("schema", _metadata, sa.Column("version", sa.Integer, primary_key=True))

_tokens = sa.Table(
    "tokens",
    _metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(20), nullable=False),
    sa.Column("host_name", sa.String(255), nullable=False),
    sa.Column("host_id", sa.String(36), nullable=False),
    sa.Column("note", sa.String(255), nullable=False),
    sa.Column("end_s", sa.BigInteger, nullable=False),
)

_hosts = sa.Table(
    "hosts",
    _metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("host_id", sa.String(36), nullable=False),
    sa.Column("ek_digest", sa.String(64), nullable=False, unique=True),
    sa.Column("ek_certificate", sa.LargeBinary, nullable=False),
    sa.Column("ek_public", sa.LargeBinary, nullable=False),
    sa.Column("ak_public", sa.LargeBinary, nullable=False),
    sa.Column("certificate_digest", sa.String(64), nullable=False, unique=True),
    sa.Column("boot", sa.Text),
    sa.Column("result", sa.Text),
)

_references = sa.Table(
    "reference_values",
    _metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
)


@dataclasses.dataclass(frozen=True)
class Token:
    """What a bearer may do: role, and for an enrolment token the one host it is good for, and until when.

    `end_s` is in seconds of the wall clock (UTC epoch); it bounds only how long a forgotten token lies about.
    """

    role: str
    host_name: str = ""
    host_id: str = ""
    note: str = ""
    end_s: int = NEVER


@dataclasses.dataclass(frozen=True)
class Result:
    """The last result on a host, with the moment its nonce was issued by one boot's CLOCK_BOOTTIME."""

    level: Level
    findings: tuple[Finding, ...]
    born_ms: int
    verifier_boot_id: str
    boot_id: str


@dataclasses.dataclass(frozen=True)
class Enrolled:
    """An enrolled host's row. `certificate_digest` is SHA-256 over the DER of its client certificate, hex."""

    identity: EnrolledHost
    host_id: str
    ek_digest: str
    ek_certificate: bytes
    certificate_digest: str
    boot: Optional[Boot] = None
    result: Optional[Result] = None


class Store:
    """The database.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////var/lib/ovirt-tcp/verifier/verifier.db`.

    Raises:
        InvalidConfig: it cannot be opened, or belongs to a newer version.
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, future=True)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _configure_sqlite)
        try:
            _metadata.create_all(self._engine)
            with self._engine.begin() as connection:
                version = connection.execute(sa.select(_schema.c.version)).scalar()
                if version is None:
                    connection.execute(sa.insert(_schema).values(version=SCHEMA_VERSION))
        except sa.exc.SQLAlchemyError as e:
            raise errors.InvalidConfig(url, [f"the database cannot be opened: {_first_line(e)}"]) from e
        if version not in (None, SCHEMA_VERSION):
            raise errors.InvalidConfig(url, [f"the database has version {version}, not {SCHEMA_VERSION}"])

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def add_token(self, secret: str, token: Token) -> None:
        """Keep a token; only its digest is stored."""
        row = {"digest": _digest(secret), **dataclasses.asdict(token)}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(_tokens).values(**row))

    def token(self, secret: str) -> Optional[Token]:
        """Return what the bearer of `secret` may do, None if it is no token."""
        statement = sa.select(_tokens).where(_tokens.c.digest == _digest(secret))
        with self._engine.connect() as connection:
            row = connection.execute(statement).mappings().first()
        return None if row is None else Token(row["role"], row["host_name"], row["host_id"], row["note"], row["end_s"])

    def enrol(self, secret: str, host: Enrolled) -> None:
        """Spend the enrolment token and bind the host's identity, both or neither.

        The same EK under the same name replaces its AK and certificate; its counters and result end with them.

        Raises:
            Refused: token_unknown (spent meanwhile), ek_in_use (the EK has another name), or name_in_use (the
                name has another EK).
        """
        name, identity = host.identity.name, host.identity
        row = {
            "name": name,
            "host_id": host.host_id,
            "ek_digest": host.ek_digest,
            "ek_certificate": host.ek_certificate,
            "ek_public": identity.ek.area,
            "ak_public": identity.ak.area,
            "certificate_digest": host.certificate_digest,
            "boot": None,
            "result": None,
        }
        try:
            with self._engine.begin() as connection:
                self._spend(connection, secret, name)
                check_binding(self._bound(connection, name, host.ek_digest), name, host.ek_digest)
                connection.execute(sa.delete(_hosts).where(_hosts.c.name == name))
                connection.execute(sa.insert(_hosts).values(**row))
        except sa.exc.IntegrityError as e:
            raise errors.Refused("ek_in_use", "this TPM was enrolled under another name meanwhile") from e

    def bound(self, name: str, ek_digest: str) -> Sequence[tuple[str, str]]:
        """Return (name, EK digest) of the hosts that have this name or this EK."""
        with self._engine.connect() as connection:
            return self._bound(connection, name, ek_digest)

    def remove_host(self, name: str) -> None:
        """Forget a host: its TPM is replaced, or it left.

        Raises:
            NotFound: it is not enrolled.
        """
        with self._engine.begin() as connection:
            if connection.execute(sa.delete(_hosts).where(_hosts.c.name == name)).rowcount == 0:
                raise errors.NotFound("enrolled host", name)

    def host(self, name: str) -> Optional[Enrolled]:
        """Return the host enrolled under that name, None if there is none.

        Raises:
            InvalidMessage: its row cannot be read.
        """
        return self._one(_hosts.c.name == name)

    def host_by_certificate(self, digest: str) -> Optional[Enrolled]:
        """Return the host whose client certificate has that SHA-256 digest (hex). Raises InvalidMessage."""
        return self._one(_hosts.c.certificate_digest == digest)

    def host_names(self) -> list[str]:
        """Return the names of all enrolled hosts, sorted."""
        with self._engine.connect() as connection:
            return list(connection.execute(sa.select(_hosts.c.name).order_by(_hosts.c.name)).scalars())

    def keep_result(self, name: str, certificate_digest: str, boot: Boot, result: Result) -> None:
        """Keep a host's newest result and counters, unless it was re-enrolled meanwhile."""
        statement = (
            sa.update(_hosts)
            .where(_hosts.c.name == name, _hosts.c.certificate_digest == certificate_digest)
            .values(boot=json.dumps(dataclasses.asdict(boot)), result=json.dumps(_encode_result(result)))
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def add_reference_values(self, boot: reference_values.GoodBoot) -> None:
        """Keep reference values.

        Raises:
            Conflict: the name is taken.
        """
        content = json.dumps(reference_values.encode(boot))
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(_references).values(name=boot.name, content=content))
        except sa.exc.IntegrityError as e:
            raise errors.Conflict(f"reference values named {boot.name} exist already") from e

    def remove_reference_values(self, name: str) -> None:
        """Withdraw reference values. Raises NotFound."""
        with self._engine.begin() as connection:
            if connection.execute(sa.delete(_references).where(_references.c.name == name)).rowcount == 0:
                raise errors.NotFound("set of reference values", name)

    def reference_values(self) -> list[reference_values.GoodBoot]:
        """Return all reference values, sorted by name.

        Raises:
            Unavailable: one cannot be read. To judge without it would call good hosts untrusted.
        """
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_references.c.content).order_by(_references.c.name)).scalars().all()
        try:
            return [reference_values.decode(json.loads(row)) for row in rows]
        except (ValueError, KeyError, TypeError) as e:
            raise errors.Unavailable("the store", "a set of reference values cannot be read; remove it") from e

    def _spend(self, connection: sa.Connection, secret: str, name: str) -> None:
        own = (_tokens.c.digest == _digest(secret), _tokens.c.role == "enrolment", _tokens.c.host_name == name)
        if connection.execute(sa.delete(_tokens).where(*own)).rowcount != 1:
            raise errors.Refused("token_unknown", "the enrolment token is not known, or was used before")
        # Others for this host were made for this enrolment, too: a spare one would undo it later.
        others = (_tokens.c.role == "enrolment", _tokens.c.host_name == name)
        connection.execute(sa.delete(_tokens).where(*others))

    def _bound(self, connection: sa.Connection, name: str, ek_digest: str) -> Sequence[tuple[str, str]]:
        either = (_hosts.c.name == name) | (_hosts.c.ek_digest == ek_digest)
        rows = connection.execute(sa.select(_hosts.c.name, _hosts.c.ek_digest).where(either))
        return [(row[0], row[1]) for row in rows]

    def _one(self, condition: Any) -> Optional[Enrolled]:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_hosts).where(condition)).mappings().first()
        return None if row is None else _decode_host(row)


def check_binding(bound: Sequence[tuple[str, str]], name: str, ek_digest: str) -> None:
    """Return if `name` and the EK belong together or are both free: one EK, one host name, both ways.

    Raises:
        Refused: ek_in_use or name_in_use.
    """
    for other_name, other_ek in bound:
        if other_name != name:
            raise errors.Refused("ek_in_use", "this TPM is enrolled under another host name")
        if other_ek != ek_digest:
            raise errors.Refused(
                "name_in_use",
                f"{name} is enrolled with another TPM; if it was replaced: ovirt-tcp-verifier host remove {name}",
            )


def _decode_host(row: Any) -> Enrolled:
    try:
        ek, ak = tpm2.parse_public(row["ek_public"]), tpm2.parse_public(row["ak_public"])
        boot = None if row["boot"] is None else Boot(**json.loads(row["boot"]))
        result = None if row["result"] is None else _decode_result(json.loads(row["result"]))
    except (ValueError, KeyError, TypeError, errors.InvalidMessage) as e:
        raise errors.InvalidMessage(f"record of host {row['name']}", "it cannot be read") from e
    return Enrolled(
        EnrolledHost(row["name"], ek, ak),
        row["host_id"],
        row["ek_digest"],
        row["ek_certificate"],
        row["certificate_digest"],
        boot,
        result,
    )


def _encode_result(result: Result) -> dict[str, Any]:
    return {**dataclasses.asdict(result), "level": result.level.value}


def _decode_result(stored: dict[str, Any]) -> Result:
    findings = tuple(Finding(**finding) for finding in stored["findings"])
    return Result(
        Level(stored["level"]), findings, stored["born_ms"], stored["verifier_boot_id"], stored["boot_id"]
    )


def _digest(secret: str) -> str:
    # A token has 256 random bits, so a plain digest cannot be searched.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _configure_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
