# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which TPM 1.2 quotes are genuine. Those of a real TPM are in real_tpm12_test.py."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from ovirt_tcp_plugin.messages import tpm12
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal import quote12
from tests.verifier.software_tpm12 import LABEL, SoftwareTpm12

NONCE = b"n" * 20
FORMS = ["quote", "quote2"]


@pytest.fixture(scope="module")
def tpm() -> SoftwareTpm12:
    return SoftwareTpm12()


@pytest.fixture(params=FORMS)
def made(request: pytest.FixtureRequest, tpm: SoftwareTpm12) -> tuple[bytes, bytes]:
    """A quote of PCR 17 and 18, and its signature."""
    quoted: tuple[bytes, bytes] = getattr(tpm, request.param)(NONCE, (17, 18))
    return quoted


def failed(outcome: object) -> tuple[int, str]:
    assert isinstance(outcome, Finding)
    return outcome.check, outcome.code


def test_refuses_the_quote_of_another_key(made: tuple[bytes, bytes]) -> None:
    assert failed(quote12.check_quote(*made, SoftwareTpm12(1).ak)) == (3, "bad_signature")


def test_refuses_every_flipped_bit(made: tuple[bytes, bytes], tpm: SoftwareTpm12) -> None:
    attest, signature = made
    for position in range((len(attest) + len(signature)) * 8):
        flipped = bytearray(attest + signature)
        flipped[position // 8] ^= 1 << position % 8
        changed = bytes(flipped)
        outcome = quote12.check_quote(changed[: len(attest)], changed[len(attest) :], tpm.ak)
        assert failed(outcome) == (3, "bad_signature")


@pytest.mark.parametrize("size", [0, 1, 255, 257, 1024])
def test_refuses_a_signature_of_another_size(
    size: int, made: tuple[bytes, bytes], tpm: SoftwareTpm12
) -> None:
    assert failed(quote12.check_quote(made[0], bytes(size), tpm.ak)) == (3, "bad_signature")


def test_refuses_another_hash(made: tuple[bytes, bytes], tpm: SoftwareTpm12) -> None:
    signature = tpm.ak_key.sign(made[0], padding.PKCS1v15(), hashes.SHA256())

    assert failed(quote12.check_quote(made[0], signature, tpm.ak)) == (3, "bad_signature")


@pytest.mark.parametrize("rest", [b"\0", b"\xff" * 8])
def test_refuses_a_digest_with_something_after_it(rest: bytes, tpm: SoftwareTpm12) -> None:
    """Who compares only the start of what a signature holds can be cheated with small exponents."""
    attest, _ = tpm.quote(NONCE, (17,))
    info = bytes.fromhex("3021300906052b0e03021a05000414") + tpm12.sha1(attest) + rest
    padded = b"\0\1" + b"\xff" * (256 - 3 - len(info)) + b"\0" + info
    numbers = tpm.ak_key.private_numbers()
    signature = pow(int.from_bytes(padded, "big"), numbers.d, numbers.public_numbers.n).to_bytes(
        256, "big"
    )

    assert failed(quote12.check_quote(attest, signature, tpm.ak)) == (3, "bad_signature")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda tpm: tpm12.identity_contents(LABEL, tpm.ak), id="identity contents"),
        pytest.param(lambda tpm: tpm12.VERSION + b"\0\x12" + bytes(60), id="certified key"),
        pytest.param(lambda tpm: b"", id="nothing"),
    ],
)
def test_refuses_what_the_key_signs_besides_quotes(other: object, tpm: SoftwareTpm12) -> None:
    signed = other(tpm)  # type: ignore[operator]

    assert failed(quote12.check_quote(signed, tpm.sign(signed), tpm.ak)) == (2, "not_a_quote")


def test_accepts_the_keys_own_quote(tpm: SoftwareTpm12) -> None:
    digest = tpm12.composite_digest({17: tpm.pcrs[17], 18: tpm.pcrs[18]})

    assert quote12.check_quote(*tpm.quote(NONCE, (17, 18)), tpm.ak) == tpm12.Quote12(
        NONCE, None, digest
    )
    assert quote12.check_quote(*tpm.quote2(NONCE, (17, 18)), tpm.ak) == tpm12.Quote12(
        NONCE, (17, 18), digest
    )
