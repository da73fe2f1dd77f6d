# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Signed verdicts: read by another library, and refused when anything of them is changed."""

from __future__ import annotations

import base64
import dataclasses
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.ear import SignedResult
from ovirt_tcp_plugin.messages.result import Level

KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
NOW_S = 1_700_000_000
SAID = SignedResult(
    "host-1", "ab" * 32, Level.TRUSTED, "c0ffee00-0000-4000-8000-000000000001", 123_456, 600_000
)
TOKEN = ear.sign(SAID, KEY, NOW_S)


def verify(token: str, *keys: ec.EllipticCurvePrivateKey) -> ear.VerifiedResult:
    return ear.verify(token.encode(), [key.public_key() for key in keys or (KEY,)])


def encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_the_signature_of_another_key_is_refused() -> None:
    with pytest.raises(errors.Refused, match="bad_signature"):
        verify(TOKEN, OTHER_KEY)


def test_without_any_key_nothing_is_believed() -> None:
    with pytest.raises(errors.Refused, match="bad_signature"):
        ear.verify(TOKEN.encode(), [])


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "", None, 1])
def test_only_es256_counts(algorithm: object) -> None:
    _, claims, signature = TOKEN.split(".")
    with pytest.raises(errors.InvalidMessage, match="ES256"):
        verify(f"{encode({'alg': algorithm})}.{claims}.{signature}")


def test_claims_of_another_verdict_are_refused() -> None:
    header, _, signature = TOKEN.split(".")
    other = ear.sign(dataclasses.replace(SAID, host_name="host-2"), KEY, NOW_S).split(".")[1]
    with pytest.raises(errors.Refused, match="bad_signature"):
        verify(f"{header}.{other}.{signature}")


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", TOKEN + ".", "é.é.é", TOKEN * 9]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(errors.InvalidMessage):
        verify(token)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_a_declared_error(content: bytes) -> None:
    with pytest.raises((errors.InvalidMessage, errors.Refused)):
        ear.verify(content, [KEY.public_key()])


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("ABCDabcd0123-_."))
def test_a_changed_character_says_nothing_else(position: int, character: str) -> None:
    """The last character of a part has bits that base64 ignores; all others break the signature."""
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    try:
        signed = verify(changed)
    except (errors.InvalidMessage, errors.Refused):
        return
    assert signed.result == SAID


def test_says_what_was_signed_and_by_which_key() -> None:
    signed = verify(TOKEN + "\n", OTHER_KEY, KEY)

    assert signed == ear.VerifiedResult(SAID, ear.key_id(KEY.public_key()), NOW_S)


def test_a_jwt_library_reads_it() -> None:
    claims = jwt.decode(
        TOKEN,
        KEY.public_key(),
        ["ES256"],
        options={"require": ["iat", "exp"], "verify_exp": False},  # that moment has passed
    )

    assert jwt.get_unverified_header(TOKEN)["kid"] == ear.key_id(KEY.public_key())
    assert claims["exp"] - claims["iat"] == 600
    assert claims["submods"]["host"]["ear.status"] == "affirming"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(TOKEN, OTHER_KEY.public_key(), ["ES256"])


@pytest.mark.parametrize(
    ("level", "status"),
    [(Level.UNTRUSTED, "contraindicated"), (Level.UNKNOWN, "none"), (Level.TIMEOUT, "none")],
)
def test_only_trusted_is_affirming(level: Level, status: str) -> None:
    token = ear.sign(dataclasses.replace(SAID, level=level), KEY, NOW_S)

    assert verify(token).result.level is level
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["submods"]["host"]["ear.status"] == status
