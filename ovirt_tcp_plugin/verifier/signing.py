# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Signs verdicts for the hosts' gates, with the one key that all servers on a database share.

The key changes in three steps, so that no good verdict is refused meanwhile: `prepare` makes the
next one, the administrator gives its public part to the hosts, `activate` has every server sign
with it within REFRESH_INTERVAL_S.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Optional

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.ear import SignedResult
from ovirt_tcp_plugin.messages.evidence import Evidence
from ovirt_tcp_plugin.messages.result import AttestationResult
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store import verdict_keys
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import EnrolledHost
from ovirt_tcp_plugin.verifier.store.verdict_keys import StoredKey

log = logging.getLogger("verifier.signing")

REFRESH_INTERVAL_S = 5.0

_PURPOSE = b"ovirt-tcp verdict keys 1"


class Signer:
    """Signs with the active key of a database.

    Raises:
        InvalidConfig: the key cannot be read with this authority.
        Unavailable: the database does not answer.
    """

    def __init__(self, database: Database, ca: Authority, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._authority = ca
        ensure_key(database, ca)
        self._key_id = ""
        self._take(database.transact(verdict_keys.active))

    def sign(self, host: EnrolledHost, reported: Evidence, outcome: AttestationResult) -> str:
        """Return the signed verdict for the host that sent this evidence and was judged so.

        Its life is counted from the quote, and shortened by the time since the nonce was issued, so
        that it ends no later than the result does.
        """
        age_ms = outcome.age_ms
        left_ms = 0 if age_ms is None else max(outcome.lifetime_ms - age_ms, 0)
        result = SignedResult(
            host_name=host.name,
            ek_digest=host.ek_digest,
            level=outcome.level,
            boot_id=reported.boot_id,
            boottime_ms=reported.boottime_ms,
            lifetime_ms=left_ms,
        )
        return ear.sign(result, self._key, int(self._clock.wall().timestamp()))

    def use(self, ca: Authority) -> None:
        """Read the keys with another authority from now on."""
        self._authority = ca

    async def refresh(self) -> None:
        """Take over the key that another process made the active one.

        Raises as the constructor does.
        """
        stored = await self._database.read(verdict_keys.active)
        self._take(stored)

    async def keep_fresh(self) -> None:
        """Refresh from time to time, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            try:
                await self.refresh()
            except errors.Error as e:
                log.warning("verdict key not refreshed error=%s", e)

    def _take(self, stored: Optional[StoredKey]) -> None:
        if stored is None:
            fault = (
                "it has no key that signs verdicts, or one that cannot be read: restore a backup, "
                "or give the hosts another key by `ovirt-tcp-verifier verdict-key`"
            )
            raise errors.InvalidConfig("the database", [fault])
        if stored.key_id == self._key_id:
            return
        self._key = _private_key(stored, self._authority)
        self._key_id = stored.key_id
        log.info("verdict key id=%s", stored.key_id)


def ensure_key(database: Database, ca: Authority) -> None:
    """Make the first key of a database, or protect those there are by this authority's key.

    Raises:
        Unavailable: the database does not answer.
    """
    if not database.transact(verdict_keys.is_empty):
        protect_again(database, ca)
        return
    first = new_key(ca)
    try:
        database.transact(lambda c: verdict_keys.begin(c, first))
    except errors.Unavailable:
        if database.transact(verdict_keys.is_empty):
            raise
        # Another server that starts just now was quicker.


def protect_again(database: Database, ca: Authority) -> None:
    """Encrypt the keys in a database under an authority's key that those before it protect.

    What neither can read stays as it is. Raises Unavailable.
    """
    for stored in database.transact(verdict_keys.every).values():
        if not stored.private or _decrypted(stored, ca.derive(_PURPOSE)) is not None:
            continue
        for secret in ca.derive_former(_PURPOSE):
            key = _decrypted(stored, secret)
            if key is not None:
                private = _encrypted(key, ca)
                _keep(database, stored.key_id, private)


def _keep(database: Database, key_id: str, private: str) -> None:
    database.transact(lambda connection: verdict_keys.protect(connection, key_id, private))


def _private_key(stored: StoredKey, ca: Authority) -> ec.EllipticCurvePrivateKey:
    """Return the key that signs. Raises InvalidConfig."""
    for secret in (ca.derive(_PURPOSE), *ca.derive_former(_PURPOSE)):
        key = _decrypted(stored, secret)
        if key is not None:
            return key
    fault = "its verdict key cannot be read with this ca.key"
    raise errors.InvalidConfig("the database", [fault])


def _decrypted(stored: StoredKey, secret: bytes) -> Optional[ec.EllipticCurvePrivateKey]:
    try:
        key = serialization.load_pem_private_key(stored.private.encode("ascii"), secret)
    except (ValueError, TypeError, AttributeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _encrypted(key: ec.EllipticCurvePrivateKey, ca: Authority) -> str:
    encryption = serialization.BestAvailableEncryption(ca.derive(_PURPOSE))
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption)
    return private.decode("ascii")


def new_key(ca: Authority) -> StoredKey:
    """Return a new key, as it is stored."""
    key = ec.generate_private_key(ec.SECP256R1())
    encoding = serialization.Encoding.PEM
    public_key = key.public_key()
    public = public_key.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    return StoredKey(
        key_id=ear.key_id(public_key),
        public=public.decode("ascii"),
        private=_encrypted(key, ca),
    )
