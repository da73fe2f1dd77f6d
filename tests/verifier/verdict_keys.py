# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The public halves of the keys that sign verdicts."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin.verifier.store import verdict_keys
from ovirt_tcp_plugin.verifier.store.database import Database


def public_key(stored: verdict_keys.StoredKey) -> ec.EllipticCurvePublicKey:
    key = serialization.load_pem_public_key(stored.public.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def keys(database: Database, *states: str) -> list[ec.EllipticCurvePublicKey]:
    known = database.transact(verdict_keys.every)
    return [public_key(known[state]) for state in states]
