# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""TPM 1.2 structures: what TPMs make is read, everything else is malformed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import tpm12
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader
from tests.messages import hostile

MODULUS = b"\xff" * 256
NONCE, DIGEST = b"n" * 20, b"d" * 20
QUOTE = tpm12.encode_quote(NONCE, DIGEST)
INFO = tpm12.encode_selection([17, 18]) + b"\x01" + DIGEST
VERSION_INFO = struct.pack(">H4sHB4sH", 0x0030, b"\1\2\3\4", 2, 3, b"IBM\0", 2) + b"vs"
QUOTE2 = tpm12.encode_quote2(NONCE, INFO, b"")
QUOTE2_VERSION = tpm12.encode_quote2(NONCE, INFO, VERSION_INFO)
PUBLIC = tpm12.encode_public_key(tpm12.ES_NONE, tpm12.SS_RSASSA_SHA1, MODULUS)
ATTESTATION = tpm12.encode_attestation(b"i" * 16, b"e" * 48)


def rsa_parameters(
    algorithm: int = 1,
    bits: int = 2048,
    primes: int = 2,
    exponent: bytes = b"",
    size: int = 12,
    rest: bytes = b"",
) -> bytes:
    head = struct.pack(
        ">IHHI", algorithm, tpm12.ES_NONE, tpm12.SS_RSASSA_SHA1, size + len(exponent)
    )
    return head + struct.pack(">III", bits, primes, len(exponent)) + exponent + rest


def long(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def key(
    usage: int = 0x0012, tag: int = 0x0028, fill: int = 0, private: bytes = b"p" * 256
) -> bytes:
    head = struct.pack(">HHHIB", tag, fill, usage, 0, 0)
    return head + rsa_parameters() + long(b"") + long(MODULUS) + long(private)


def test_reads_a_quote() -> None:
    assert tpm12.parse_quote(QUOTE) == tpm12.Quote12(NONCE, None, DIGEST)


@pytest.mark.parametrize(
    "signed", [QUOTE2, QUOTE2_VERSION], ids=["without version", "with version"]
)
def test_reads_a_quote2(signed: bytes) -> None:
    assert tpm12.parse_quote(signed) == tpm12.Quote12(NONCE, (17, 18), DIGEST)


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        pytest.param(b"", "ends at byte 0", id="empty"),
        pytest.param(QUOTE[:-1], "ends at byte 47", id="cut"),
        pytest.param(QUOTE + b"\0", "1 bytes too many", id="trailing"),
        pytest.param(b"\1\2" + QUOTE[2:], "not a quote", id="version"),
        pytest.param(tpm12.VERSION + b"\0\x12\0\0" + bytes(40), "not a quote", id="key certified"),
        pytest.param(
            tpm12.identity_contents(NONCE, tpm12.parse_public_key(PUBLIC)),
            "not a quote",
            id="identity contents",
        ),
        pytest.param(QUOTE2.replace(b"QUT2", b"QUT3"), "not a quote", id="other mark"),
        pytest.param(QUOTE2.replace(b"QUT2", b"SIGN"), "not a quote", id="signed information"),
        pytest.param(
            QUOTE2[:26] + b"\0\2" + QUOTE2[28:], "a PCR selection of 2 octets", id="selection"
        ),
        pytest.param(QUOTE2 + b"\0", "ends at byte 53", id="half a tag"),
        pytest.param(QUOTE2 + b"\0\x31" + VERSION_INFO[2:], "neither an end nor", id="other tag"),
        pytest.param(QUOTE2_VERSION + b"\0", "1 bytes too many", id="after version"),
        pytest.param(
            QUOTE2 + VERSION_INFO[:-4] + b"\1\1" + bytes(257), "a field of 257 bytes", id="vendor"
        ),
        pytest.param(QUOTE + bytes(1024), "longer than 1024 bytes", id="long"),
    ],
)
def test_refuses_what_is_no_quote(untrusted: bytes, reason: str) -> None:
    with pytest.raises(errors.InvalidMessage, match=f"malformed TPM_QUOTE_INFO: .*{reason}"):
        tpm12.parse_quote(untrusted)


def test_reads_a_public_key() -> None:
    read = tpm12.parse_public_key(PUBLIC)

    assert (read.encryption_scheme, read.signature_scheme) == (tpm12.ES_NONE, tpm12.SS_RSASSA_SHA1)
    assert (read.key.bits, read.key.exponent, read.key.modulus) == (2048, 65537, 2**2048 - 1)
    assert read.digest == hashlib.sha1(PUBLIC, usedforsecurity=False).digest()


def test_a_key_keeps_the_bytes_by_which_its_tpm_names_it() -> None:
    explicit = rsa_parameters(exponent=b"\1\0\1") + long(MODULUS)

    assert tpm12.parse_public_key(explicit).key == tpm12.parse_public_key(PUBLIC).key
    assert tpm12.parse_public_key(explicit).area == explicit


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        pytest.param(
            rsa_parameters(algorithm=6) + long(MODULUS), "unknown key type 0x00000006", id="AES"
        ),
        pytest.param(
            rsa_parameters(primes=3) + long(MODULUS),
            "not an RSA key with two primes",
            id="three primes",
        ),
        pytest.param(
            rsa_parameters(exponent=b"\3") + long(MODULUS), "the exponent 65537", id="exponent 3"
        ),
        pytest.param(
            rsa_parameters(exponent=bytes(9)) + long(MODULUS),
            "a field of 9 bytes",
            id="long exponent",
        ),
        pytest.param(
            rsa_parameters(size=13, rest=b"\0") + long(MODULUS),
            "1 bytes too many",
            id="parameters too long",
        ),
        pytest.param(
            rsa_parameters(size=11) + long(MODULUS), "ends at byte 11", id="parameters too short"
        ),
        pytest.param(
            rsa_parameters(bits=1024) + long(MODULUS[:128]), "has not 2048 bits", id="RSA-1024"
        ),
        pytest.param(rsa_parameters() + long(MODULUS[1:]), "has not 2048 bits", id="short modulus"),
        pytest.param(
            rsa_parameters() + long(b"\x7f" + MODULUS[1:]), "has not 2048 bits", id="small modulus"
        ),
        pytest.param(
            rsa_parameters() + long(MODULUS * 3), "a field of 768 bytes", id="long modulus"
        ),
        pytest.param(PUBLIC + b"\0", "1 bytes too many", id="trailing"),
        pytest.param(PUBLIC + bytes(1024), "longer than 1024 bytes", id="long"),
    ],
)
def test_refuses_what_is_no_public_key(untrusted: bytes, reason: str) -> None:
    with pytest.raises(
        errors.InvalidMessage, match=f"malformed TPM_(PUBKEY|RSA_KEY_PARMS): .*{reason}"
    ):
        tpm12.parse_public_key(untrusted)


def test_reads_a_key() -> None:
    read = tpm12.parse_key(key())

    assert read.usage == tpm12.USAGE_IDENTITY
    assert read.public == tpm12.parse_public_key(PUBLIC)
    assert read.area == key()


def test_the_private_part_of_a_key_can_be_left_out() -> None:
    public_area = tpm12.parse_key(key()).public_area

    assert public_area == key(private=b"")
    assert tpm12.parse_key(public_area).public_area == public_area


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        pytest.param(key(tag=0x0029), "not a TPM_KEY12", id="tag"),
        pytest.param(key(fill=1), "not a TPM_KEY12", id="fill"),
        pytest.param(key(private=bytes(513)), "a field of 513 bytes", id="private part"),
        pytest.param(key() + b"\0", "1 bytes too many", id="trailing"),
        pytest.param(key() + bytes(1024), "longer than 1024 bytes", id="long"),
    ],
)
def test_refuses_what_is_no_key(untrusted: bytes, reason: str) -> None:
    with pytest.raises(errors.InvalidMessage, match=f"malformed TPM_KEY12: .*{reason}"):
        tpm12.parse_key(untrusted)


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        pytest.param(
            ATTESTATION[:4] + b"\0\0\0\2" + ATTESTATION[8:],
            "not encrypted by AES-128-CBC",
            id="3DES",
        ),
        pytest.param(ATTESTATION[:-1], "were announced", id="cut"),
        pytest.param(ATTESTATION + b"\0", "1 bytes too many", id="trailing"),
        pytest.param(ATTESTATION + bytes(1024), "longer than 1024 bytes", id="long"),
    ],
)
def test_refuses_what_is_no_attestation(untrusted: bytes, reason: str) -> None:
    with pytest.raises(
        errors.InvalidMessage, match=f"malformed TPM_SYM_CA_ATTESTATION: .*{reason}"
    ):
        tpm12.parse_attestation(untrusted)


def test_an_attestation_comes_back() -> None:
    assert tpm12.parse_attestation(ATTESTATION) == (b"i" * 16, b"e" * 48)


def test_a_symmetric_key_comes_back() -> None:
    reader = TpmReader(tpm12.encode_symmetric_key(b"k" * 16), "answer")

    assert tpm12.take_symmetric_key(reader) == b"k" * 16
    reader.end()


@pytest.mark.parametrize(
    "other", [b"\0\0\0\2\0\xff\0\x10" + bytes(16), b"\0\0\0\6\0\xff\0\x18" + bytes(24)]
)
def test_another_symmetric_key_is_malformed(other: bytes) -> None:
    with pytest.raises(errors.InvalidMessage, match="not an AES-128 key"):
        tpm12.take_symmetric_key(TpmReader(other, "answer"))


def parse_composite(untrusted: bytes) -> object:
    return tpm12.take_composite(TpmReader(untrusted, "TPM_PCR_COMPOSITE"))


def test_values_must_fit_their_selection() -> None:
    with pytest.raises(errors.InvalidMessage, match="20 bytes of values for 2 PCRs"):
        parse_composite(tpm12.encode_selection([0, 1]) + long(bytes(20)))


PARSERS = [
    pytest.param(tpm12.parse_quote, QUOTE, id="quote"),
    pytest.param(tpm12.parse_quote, QUOTE2_VERSION, id="quote2"),
    pytest.param(tpm12.parse_public_key, PUBLIC, id="public key"),
    pytest.param(tpm12.parse_key, key(), id="key"),
    pytest.param(tpm12.parse_attestation, ATTESTATION, id="attestation"),
    pytest.param(parse_composite, tpm12.encode_selection([17]) + long(DIGEST), id="composite"),
]


@pytest.mark.parametrize(("parse", "good"), PARSERS)
@given(data=st.data())
def test_any_bytes_are_read_or_malformed(
    parse: Callable[[bytes], object], good: bytes, data: st.DataObject
) -> None:
    hostile.survives(parse, data.draw(st.binary(max_size=2000) | hostile.mutations(good)))


@pytest.mark.parametrize(("parse", "good"), PARSERS)
def test_every_prefix_is_malformed(parse: Callable[[bytes], object], good: bytes) -> None:
    for size in range(len(good)):
        if good[:size] == QUOTE2:
            continue  # the version after it may be absent
        with pytest.raises(errors.InvalidMessage):
            parse(good[:size])


@given(st.dictionaries(st.integers(0, 23), st.binary(min_size=20, max_size=20)))
def test_a_composite_comes_back_and_its_digest_covers_it(values: dict[int, bytes]) -> None:
    packed = tpm12.encode_selection(list(values)) + long(
        b"".join(values[index] for index in sorted(values))
    )

    assert parse_composite(packed) == values
    expected = hashlib.sha1(packed, usedforsecurity=False).digest() if values else bytes(20)
    assert tpm12.composite_digest(values) == expected


def test_the_digest_covers_which_pcrs_the_values_are_of() -> None:
    assert tpm12.composite_digest({16: DIGEST}) != tpm12.composite_digest({17: DIGEST})


@pytest.mark.parametrize(
    "values", [{}, {"sha256": {17: bytes(32)}}, {"sha1": {18: DIGEST}}, {"sha1": {17: bytes(32)}}]
)
def test_the_digest_needs_every_value(values: dict[str, dict[int, bytes]]) -> None:
    with pytest.raises(errors.InvalidMessage, match="PCR 17 of bank sha1 is missing"):
        tpm12.pcr_digest({"sha1": (17,)}, values)


def test_the_digest_is_of_what_was_quoted() -> None:
    given = {"sha1": {16: NONCE, 17: DIGEST}}

    assert tpm12.parse_quote(QUOTE).selection(given) == {"sha1": (16, 17)}
    assert tpm12.parse_quote(QUOTE2).selection(given) == {"sha1": (17, 18)}
    assert tpm12.pcr_digest({"sha1": (17,)}, given) == tpm12.composite_digest({17: DIGEST})
    assert tpm12.pcr_digest({}, given) == bytes(20)


def test_a_quote_has_room_for_twenty_bytes_of_qualifying_data() -> None:
    assert tpm12.external_data(bytes(range(32))) == bytes(range(20))
