# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Enrolled hosts: one EK, one name, both ways."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import EnrolledTpm
from ovirt_tcp_plugin.verifier.store import (
    challenges,
    columns,
    references,
    results,
    schema,
    tokens,
    withdrawals,
)
from ovirt_tcp_plugin.verifier.store.prepared_statements import PreparedStatement
from ovirt_tcp_plugin.verifier.store.schema import hosts
from ovirt_tcp_plugin.verifier.tpm_family import FAMILIES

CACHED_TPMS = 20_000

_TEXTS = ("name", "host_id", "ek_digest", "certificate_digest", "endorsed_by", "tpm_family")
_OCTETS = ("ek_certificate", "ek_public", "ak_public")

# One question for everything that an agent's request needs.
_VERSION = sa.select(schema.policy.c.version).scalar_subquery().label("policy_version")
_WITH_CHALLENGES = hosts.join(schema.rounds, schema.rounds.c.host_name == hosts.c.name)
_WITH_RESULTS = _WITH_CHALLENGES.outerjoin(
    schema.results, schema.results.c.host_name == hosts.c.name
)
_STATE = PreparedStatement(
    sa.select(*hosts.c, *challenges.columns(), *results.columns(), _VERSION)
    .select_from(_WITH_RESULTS)
    .where(
        sa.or_(
            hosts.c.certificate_digest == sa.bindparam("digest"),
            hosts.c.next_digest == sa.bindparam("digest"),
        )
    )
)


@dataclasses.dataclass(frozen=True)
class EnrolledHost:
    """What enrolment bound to a name.

    Attributes:
        tpm: its TPM: name, EK and AK.
        host_id: the engine's id of the host.
        ek_digest: SHA-256 of the EK's public area, hex.
        ek_certificate: the vendor's certificate, DER, and behind it the authorities that came from
            the TPM, too; empty if there is none.
        certificate_digest: SHA-256 over the DER of its client certificate, hex.
        endorsed_by: why its EK is believed.
        next_digest: the same of a certificate that was issued and not shown yet; empty if there is
            none.
        certificate_end_s: when the client certificate ends, in seconds of the UTC epoch; None
            while it is not known.
    """

    tpm: EnrolledTpm
    host_id: str
    ek_digest: str
    ek_certificate: bytes
    certificate_digest: str
    endorsed_by: str = "vendor"
    next_digest: str = ""
    certificate_end_s: Optional[int] = None

    @property
    def name(self) -> str:
        """Its name, lower case."""
        return self.tpm.name


@dataclasses.dataclass(frozen=True)
class HostSnapshot:
    """What an agent's request needs to know of its host.

    Attributes:
        challenge: where the questions to it stand.
        result: its last result.
        reference_version: number of the newest version of the reference values.
    """

    host: EnrolledHost
    challenge: challenges.ChallengeState
    result: results.StoredResult
    reference_version: int


def enrol(connection: Connection, secret: str, host: EnrolledHost) -> bool:
    """Spend the enrolment token and bind the host's identity, both or neither.

    The same EK under the same name replaces its AK and certificate; its counters and result end
    with them. Without a token, the chip that is bound already gets the new certificate and nothing
    else: its answer may have been lost on the way.

    Returns:
        Whether the host was bound now; False if it only got another certificate.

    Raises:
        Refused: token_unknown (no such token, and not the chip that is bound), ek_in_use (the EK
            has another name), or name_in_use (the name has another EK).
    """
    if not tokens.spend(connection, secret, host.name):
        _reissue(connection, host)
        return False
    bound_hosts = bound(connection, host.name, host.ek_digest)
    check_binding(bound_hosts, host.name, host.ek_digest)
    _delete(connection, host.name)
    _insert(connection, host)
    withdrawals.forget(connection, _withdrawal(host.tpm))
    challenges.begin(connection, host.name)
    return True


def is_bound(connection: Connection, tpm: EnrolledTpm) -> bool:
    """Return whether just these keys, EK and AK, are enrolled under this name."""
    return connection.execute(sa.select(hosts.c.name).where(_is_tpm(tpm))).first() is not None


def _is_tpm(tpm: EnrolledTpm) -> Any:
    return sa.and_(
        hosts.c.name == tpm.name,
        hosts.c.tpm_family == tpm.family,
        hosts.c.ek_public == tpm.ek.area,
        hosts.c.ak_public == tpm.ak.area,
    )


def _reissue(connection: Connection, host: EnrolledHost) -> None:
    """Give the chip that is bound already another certificate.

    Raises:
        Refused: token_unknown; it is not that chip.
    """
    change = sa.update(hosts).where(_is_tpm(host.tpm))
    reissued = change.values(next_digest=host.certificate_digest)
    if connection.execute(reissued).rowcount != 1:
        reason = "the enrolment token is not known, or was used before"
        raise errors.Refused("token_unknown", reason)


def _insert(connection: Connection, host: EnrolledHost) -> None:
    row = {
        "name": host.name,
        "host_id": host.host_id,
        "ek_digest": host.ek_digest,
        "ek_certificate": host.ek_certificate,
        "ek_public": host.tpm.ek.area,
        "ak_public": host.tpm.ak.area,
        "certificate_digest": host.certificate_digest,
        "endorsed_by": host.endorsed_by,
        "tpm_family": host.tpm.family,
        "certificate_end_s": host.certificate_end_s,
    }
    try:
        connection.execute(sa.insert(hosts).values(**row))
    except sa.exc.IntegrityError as e:
        reason = "this TPM or name was enrolled by another server meanwhile"
        raise errors.Refused("ek_in_use", reason) from e


def renew(connection: Connection, name: str, old_digest: str, new_digest: str) -> None:
    """Give a host another client certificate; the old one stays good until the new one is seen.

    Raises:
        Refused: enrolment_unknown; it was enrolled again or removed meanwhile.
    """
    current = sa.and_(hosts.c.name == name, hosts.c.certificate_digest == old_digest)
    change = sa.update(hosts).where(current).values(next_digest=new_digest)
    if connection.execute(change).rowcount != 1:
        raise errors.Refused("enrolment_unknown", "the host was enrolled again meanwhile")


def see(connection: Connection, digest: str, end_s: int) -> None:
    """Take note that a host showed this certificate: if it is a new one, the old one is void.

    Args:
        digest: SHA-256 of the certificate, hex.
        end_s: when it ends, in seconds of the UTC epoch.
    """
    shown = {"certificate_digest": digest, "next_digest": None, "certificate_end_s": end_s}
    is_next = hosts.c.next_digest == digest
    connection.execute(sa.update(hosts).where(is_next).values(**shown))
    is_current = hosts.c.certificate_digest == digest
    connection.execute(sa.update(hosts).where(is_current).values(certificate_end_s=end_s))


def certificate_ends(connection: Connection) -> dict[str, Optional[int]]:
    """Return when the client certificate of each host ends, by name; None while not known."""
    ends: dict[str, Optional[int]] = {}
    for name, end_s in connection.execute(sa.select(hosts.c.name, hosts.c.certificate_end_s)):
        ends[str(name)] = end_s if isinstance(end_s, int) else None
    return ends


def bound(connection: Connection, name: str, ek_digest: str) -> Sequence[tuple[str, str]]:
    """Return (name, EK digest) of the hosts that have this name or this EK."""
    either = (hosts.c.name == name) | (hosts.c.ek_digest == ek_digest)
    selection = sa.select(hosts.c.name, hosts.c.ek_digest).where(either)
    return [(row[0], row[1]) for row in connection.execute(selection)]


def check_binding(bound_hosts: Sequence[tuple[str, str]], name: str, ek_digest: str) -> None:
    """Return if `name` and the EK belong together or are both free.

    One EK, one host name, both ways.

    Raises:
        Refused: ek_in_use or name_in_use.
    """
    for other_name, other_ek in bound_hosts:
        if other_name != name:
            raise errors.Refused("ek_in_use", "this TPM is enrolled under another host name")
        if other_ek != ek_digest:
            command = f"ovirt-tcp hosts replace-tpm {name}"
            reason = f"{name} is enrolled with another TPM; if it was replaced: {command}"
            raise errors.Refused("name_in_use", reason)


def remove(connection: Connection, name: str) -> None:
    """Forget a host: its TPM is replaced, or it left.

    Raises:
        NotFound: it is not enrolled.
    """
    if not _delete(connection, name):
        raise errors.NotFound("enrolled host", name)


def find(connection: Connection, name: str) -> Optional[EnrolledHost]:
    """Return the host enrolled under that name, None if there is none.

    Raises InvalidMessage on a corrupt row.
    """
    selection = sa.select(hosts).where(hosts.c.name == name)
    try:
        row = connection.execute(selection).mappings().first()
    except TypeError as e:  # EL9's SQLAlchemy makes bytes of what stands in a column of bytes
        raise errors.InvalidMessage(f"record of host {name}", "it cannot be read") from e
    return None if row is None else _decode(row)


def by_certificate(connection: Connection, digest: str) -> Optional[HostSnapshot]:
    """Return the state of the host whose client certificate has that SHA-256 digest (hex).

    Raises:
        InvalidMessage: its row is corrupt.
        Unavailable: the version of the reference values cannot be read.
    """
    row = _STATE.first(connection, {"digest": digest})
    if row is None:
        return None
    return HostSnapshot(
        host=_decode(row),
        challenge=challenges.decode(row),
        result=results.decode(row),
        reference_version=references.decode_version(row["policy_version"]),
    )


def names(connection: Connection) -> list[str]:
    """Return the names of all enrolled hosts, sorted."""
    selection = sa.select(hosts.c.name).order_by(hosts.c.name)
    return [str(name) for name in connection.execute(selection).scalars()]


def marks(connection: Connection) -> dict[str, dict[str, str]]:
    """Return what a person should know of each enrolled host's TPM, by name.

    `endorsed_by` and `tpm_family`.
    """
    selection = sa.select(hosts.c.name, hosts.c.endorsed_by, hosts.c.tpm_family)
    by_name = {}
    for name, endorsed_by, family in connection.execute(selection):
        by_name[str(name)] = {"endorsed_by": str(endorsed_by), "tpm_family": str(family)}
    return by_name


def _withdrawal(tpm: EnrolledTpm) -> withdrawals.Withdrawal:
    return withdrawals.host(tpm.name, tpm.ek.area, tpm.ak.area)


def _delete(connection: Connection, name: str) -> bool:
    keys = sa.select(hosts.c.ek_public, hosts.c.ak_public).where(hosts.c.name == name)
    try:
        row = connection.execute(keys).first()
    except TypeError:  # as in `find`
        row = None
    if row is not None and isinstance(row[0], bytes) and isinstance(row[1], bytes):
        withdrawals.add(connection, withdrawals.host(name, row[0], row[1]))
    challenges.end(connection, name)
    results.remove(connection, name)
    removal = sa.delete(hosts).where(hosts.c.name == name)
    return connection.execute(removal).rowcount == 1


def check(row: Any) -> None:
    """Return if a row of the table can be read. Raises InvalidMessage."""
    _decode(row)


def _decode(row: Any) -> EnrolledHost:
    try:
        _check_types(row)
        tpm = _load_tpm(row["name"], row["tpm_family"], row["ek_public"], row["ak_public"])
    except (columns.BadValue, errors.InvalidMessage) as e:
        raise errors.InvalidMessage(f"record of host {row['name']}", "it cannot be read") from e
    return EnrolledHost(
        tpm=tpm,
        host_id=row["host_id"],
        ek_digest=row["ek_digest"],
        ek_certificate=row["ek_certificate"],
        certificate_digest=row["certificate_digest"],
        endorsed_by=row["endorsed_by"],
        next_digest=_text(row["next_digest"]),
        certificate_end_s=_end(row["certificate_end_s"]),
    )


def _text(stored: object) -> str:
    return stored if isinstance(stored, str) else ""


def _end(stored: object) -> Optional[int]:
    # SQLite keeps what it is given; an end that cannot be read is learned again.
    return stored if isinstance(stored, int) else None


def _check_types(row: Any) -> None:
    """Return if a row holds values of the types that were stored. Raises BadValue."""
    for name in _TEXTS:
        columns.text(row[name])
    for name in _OCTETS:
        columns.octets(row[name])


@functools.lru_cache(CACHED_TPMS)
def _load_tpm(name: str, family: str, ek: bytes, ak: bytes) -> EnrolledTpm:
    """Return a TPM, which keeps what was once computed of its keys.

    Raises:
        InvalidMessage: the keys, or the family, are not what was stored.
    """
    if family not in FAMILIES:
        raise errors.InvalidMessage("TPM family", "it is none that is known")
    return FAMILIES[family].load(name, ek, ak)
