# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""TPM 1.2 structures that travel between attester and verifier.

Clauses are of the "TPM Main Specification" 1.2 revision 116, Part 2 (Structures), unless Part 3
(Commands) is named. Everything here rests on SHA-1, which the chip does not let anybody choose: a
host with such a TPM is worth less. Parsing says only that the bytes have the form; who made them is
for `verifier/appraisal/quote12.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.tpm2 import MAX_RSA_SIZE, PCR_COUNT, PcrValues, RsaKey, Selection
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader

BANK = "sha1"
DIGEST_SIZE = 20
VERSION = bytes.fromhex("01010000")  # TPM_STRUCT_VER, 5.1: the same in each TPM 1.2
ORD_MAKE_IDENTITY = 0x79  # TPM_ORD_MakeIdentity, 17

TAG_QUOTE_INFO2 = 0x0036  # TPM_TAG_QUOTE_INFO2, 3.1
TAG_KEY12 = 0x0028
TAG_CAP_VERSION_INFO = 0x0030
FIXED_QUOTE = b"QUOT"
FIXED_QUOTE2 = b"QUT2"

# TPM_KEY_USAGE, 5.8
USAGE_SIGNING = 0x0010
USAGE_STORAGE = 0x0011
USAGE_IDENTITY = 0x0012

MIGRATABLE = 0x00000002  # TPM_KEY_FLAGS, 5.10
AUTH_NEVER = 0x00  # TPM_AUTH_DATA_USAGE, 5.9
AUTH_ALWAYS = 0x01

ALG_RSA = 0x00000001  # TPM_ALGORITHM_ID, 4.8
ALG_AES128 = 0x00000006
ES_NONE = 0x0001  # TPM_ENC_SCHEME, 5.8.1
ES_RSAES_OAEP = 0x0003
ES_SYM_CBC = 0x00FF
SS_NONE = 0x0001  # TPM_SIG_SCHEME, 5.8.2
SS_RSASSA_SHA1 = 0x0002

AES_SIZE = 16
MAX_ATTEST_SIZE = 1024
MAX_KEY_SIZE = 1024
MAX_ATTESTATION_SIZE = 1024

_SELECTION_SIZE = PCR_COUNT // 8
_MAX_EXPONENT_SIZE = 8
_MAX_PCR_INFO_SIZE = 256
_MAX_VENDOR_SIZE = 256
_KEY_PARMS = struct.Struct(
    ">IHHI"
)  # algorithm, encryption scheme, signature scheme, size of what follows


@dataclasses.dataclass(frozen=True)
class PublicKey:
    """TPM_PUBKEY of an RSA key, 10.5.

    Attributes:
        area: the exact bytes, whose SHA-1 names the key (TPM_ActivateIdentity, Part 3, 15.2).
        encryption_scheme, signature_scheme: what the TPM uses the key for.
    """

    area: bytes
    encryption_scheme: int
    signature_scheme: int
    key: RsaKey

    @property
    def digest(self) -> bytes:
        """SHA-1 of the key, as the TPM computes it."""
        return sha1(self.area)


@dataclasses.dataclass(frozen=True)
class Key:
    """TPM_KEY12, 10.3.

    Nothing in it is signed: that `usage` is true is known only after the TPM took it for an
    identity key.

    Attributes:
        usage: TPM_KEY_USAGE; only an identity key signs nothing but what its TPM made itself.
        flags: TPM_KEY_FLAGS.
        area: the exact bytes.
        public_area: the same without the private part, which the TPM encrypted.
    """

    usage: int
    flags: int
    public: PublicKey
    area: bytes
    public_area: bytes


@dataclasses.dataclass(frozen=True)
class Quote12:
    """TPM_QUOTE_INFO ("QUOT", 11.3) or TPM_QUOTE_INFO2 ("QUT2", 11.4).

    There is no counter of resets in it, no clock, and no word on the key that signed.

    Attributes:
        qualifying_data: 20 bytes that the caller put in (externalData).
        indices: the PCRs quoted, ascending; None for "QUOT", where only `pcr_digest` covers them.
        pcr_digest: SHA-1 over the TPM_PCR_COMPOSITE: selection and values.
    """

    qualifying_data: bytes
    indices: Optional[tuple[int, ...]]
    pcr_digest: bytes

    def selection(self, reported: PcrValues) -> Selection:
        """Return the PCRs quoted, if `reported` are the values quoted.

        They are when they hash to `pcr_digest`.
        """
        if self.indices is not None:
            return {BANK: self.indices}
        return {BANK: tuple(sorted(reported.get(BANK, {})))}


@dataclasses.dataclass(frozen=True)
class PcrInfo:
    """TPM_PCR_INFO_SHORT, 8.5; `area` is the exact bytes."""

    area: bytes
    selection: tuple[int, ...]
    composite_digest: bytes


@dataclasses.dataclass(frozen=True)
class _RsaParameters:
    """TPM_KEY_PARMS of an RSA key, 10.1; `area` is the exact bytes."""

    area: bytes
    encryption: int
    signature: int
    bits: int


def parse_quote(untrusted: bytes) -> Quote12:
    """Return the quote in the bytes that the TPM signed.

    After "QUT2" there may be a TPM_CAP_VERSION_INFO.

    Raises:
        InvalidMessage: not a quote, or bytes left over.
    """
    reader = _bounded(untrusted, "TPM_QUOTE_INFO", MAX_ATTEST_SIZE)
    head = reader.take(len(VERSION))
    if head == VERSION and reader.take(len(FIXED_QUOTE)) == FIXED_QUOTE:
        digest = reader.take(DIGEST_SIZE)
        quote = Quote12(reader.take(DIGEST_SIZE), None, digest)
    elif (
        head == struct.pack(">H", TAG_QUOTE_INFO2) + FIXED_QUOTE2[:2]
        and reader.take(2) == FIXED_QUOTE2[2:]
    ):
        quote = _quote2(reader)
    else:
        raise reader.invalid("not a quote")
    reader.end()
    return quote


def encode_quote(external_data: bytes, composite_digest: bytes) -> bytes:
    """Return the TPM_QUOTE_INFO that TPM_Quote signs (Part 3, 16.3).

    The TPM itself does not return it.
    """
    return VERSION + FIXED_QUOTE + composite_digest + external_data


def encode_quote2(external_data: bytes, info: bytes, version_info: bytes) -> bytes:
    """Return what TPM_Quote2 signs (Part 3, 16.5), from the parts that it returns.

    Args:
        info: TPM_PCR_INFO_SHORT.
        version_info: TPM_CAP_VERSION_INFO, empty if it was not asked for.
    """
    return struct.pack(">H", TAG_QUOTE_INFO2) + FIXED_QUOTE2 + external_data + info + version_info


def take_pcr_info_short(reader: TpmReader) -> PcrInfo:
    """Return the TPM_PCR_INFO_SHORT at the cursor (8.5). Raises InvalidMessage."""
    start = reader.position
    selection = take_selection(reader)
    reader.u8()  # localityAtRelease: where the command came from, which no check rests on
    digest = reader.take(DIGEST_SIZE)
    return PcrInfo(reader.since(start), selection, digest)


def parse_public_key(untrusted: bytes) -> PublicKey:
    """Return the key in a TPM_PUBKEY (10.5).

    Raises:
        InvalidMessage: not an RSA-2048 key with the default exponent, or bytes left over.
    """
    reader = _bounded(untrusted, "TPM_PUBKEY", MAX_KEY_SIZE)
    parameters = _take_rsa_parameters(reader)
    public = _public_key(reader, parameters)
    reader.end()
    return public


def parse_key(untrusted: bytes) -> Key:
    """Return the key in a TPM_KEY12 (10.3), with or without its private part.

    Raises:
        InvalidMessage: another structure, not an RSA-2048 key with the default exponent, or bytes
            left over.
    """
    reader = _bounded(untrusted, "TPM_KEY12", MAX_KEY_SIZE)
    key = take_key(reader)
    reader.end()
    return key


def take_key(reader: TpmReader) -> Key:
    """Return the TPM_KEY12 at the cursor (10.3). Raises InvalidMessage as `parse_key` does."""
    start = reader.position
    if reader.u16() != TAG_KEY12 or reader.u16() != 0:
        raise reader.invalid("not a TPM_KEY12")
    usage = reader.u16()
    flags = reader.u32()
    reader.u8()  # authDataUsage: of interest to the host only
    parameters = _take_rsa_parameters(reader)
    _take_long(reader, _MAX_PCR_INFO_SIZE)
    public = _public_key(reader, parameters)
    public_area = reader.since(start) + struct.pack(">I", 0)
    _take_long(reader, MAX_RSA_SIZE)
    return Key(usage, flags, public, reader.since(start), public_area)


def encode_rsa_parameters(encryption_scheme: int, signature_scheme: int, bits: int = 2048) -> bytes:
    """Return the TPM_KEY_PARMS of an RSA key with the default exponent (10.1, 10.4)."""
    parameters = struct.pack(">III", bits, 2, 0)
    return (
        _KEY_PARMS.pack(ALG_RSA, encryption_scheme, signature_scheme, len(parameters)) + parameters
    )


def encode_public_key(encryption_scheme: int, signature_scheme: int, modulus: bytes) -> bytes:
    """Return the TPM_PUBKEY of an RSA key with the default exponent (10.5)."""
    return encode_rsa_parameters(encryption_scheme, signature_scheme, len(modulus) * 8) + _long(
        modulus
    )


def encode_key(usage: int, encryption_scheme: int, signature_scheme: int, auth_usage: int) -> bytes:
    """Return the TPM_KEY12 by which a TPM is asked for a new RSA-2048 key (10.3)."""
    head = struct.pack(">HHHIB", TAG_KEY12, 0, usage, 0, auth_usage)
    return (
        head
        + encode_rsa_parameters(encryption_scheme, signature_scheme)
        + struct.pack(">III", 0, 0, 0)
    )


def encode_selection(indices: Sequence[int]) -> bytes:
    """Return the TPM_PCR_SELECTION of these PCRs, three octets (8.1)."""
    bits = sum(1 << index for index in set(indices))
    return struct.pack(">H", _SELECTION_SIZE) + bits.to_bytes(_SELECTION_SIZE, "little")


def take_selection(reader: TpmReader) -> tuple[int, ...]:
    """Return the PCRs of the TPM_PCR_SELECTION at the cursor, ascending (8.1).

    Raises:
        InvalidMessage: not three octets: each PC's TPM has 24 PCRs, and a second encoding would
            have a second digest.
    """
    size = reader.u16()
    if size != _SELECTION_SIZE:
        raise reader.invalid(f"a PCR selection of {size} octets")
    bits = int.from_bytes(reader.take(size), "little")
    return tuple(index for index in range(PCR_COUNT) if bits >> index & 1)


def take_composite(reader: TpmReader) -> Mapping[int, bytes]:
    """Return the values in the TPM_PCR_COMPOSITE at the cursor, by index (8.2).

    Raises InvalidMessage.
    """
    selection = take_selection(reader)
    size = reader.u32()
    if size != len(selection) * DIGEST_SIZE:
        raise reader.invalid(f"{size} bytes of values for {len(selection)} PCRs")
    return {index: reader.take(DIGEST_SIZE) for index in selection}


def composite_digest(values: Mapping[int, bytes]) -> bytes:
    """Return the SHA-1 of the TPM_PCR_COMPOSITE of these values (8.2).

    It covers which PCRs they are, too. Of no values it is twenty zeros; so a TPM answers (seen on
    libtpms).
    """
    if not values:
        return bytes(DIGEST_SIZE)
    ordered = sorted(values)
    packed = b"".join(values[index] for index in ordered)
    return sha1(encode_selection(ordered) + _long(packed))


def pcr_digest(selection: Selection, values: PcrValues) -> bytes:
    """Return the digest over the selected values, as a quote has it.

    Raises:
        InvalidMessage: a selected value is missing or has not 20 bytes.
    """
    by_index = values.get(BANK, {})
    selected = {}
    for index in selection.get(BANK, ()):
        value = by_index.get(index, b"")
        if len(value) != DIGEST_SIZE:
            raise errors.InvalidMessage("PCR values", f"PCR {index} of bank {BANK} is missing")
        selected[index] = value
    return composite_digest(selected)


def identity_contents(label_digest: bytes, public: PublicKey) -> bytes:
    """Return the TPM_IDENTITY_CONTENTS by which a new identity key is bound to a label (12.5).

    The key signs it.

    Args:
        label_digest: 20 bytes that the caller of TPM_MakeIdentity chose.
    """
    return VERSION + struct.pack(">I", ORD_MAKE_IDENTITY) + label_digest + public.area


def encode_asym_ca_contents(aes_key: bytes, public: PublicKey) -> bytes:
    """Return the TPM_ASYM_CA_CONTENTS of an AES key (12.8).

    The TPM gives the key for that identity key only.
    """
    return encode_symmetric_key(aes_key) + public.digest


def encode_symmetric_key(aes_key: bytes) -> bytes:
    """Return the TPM_SYMMETRIC_KEY of an AES-128 key (10.7)."""
    return struct.pack(">IHH", ALG_AES128, ES_SYM_CBC, len(aes_key)) + aes_key


def take_symmetric_key(reader: TpmReader) -> bytes:
    """Return the AES-128 key of the TPM_SYMMETRIC_KEY at the cursor (10.7).

    Raises InvalidMessage.
    """
    algorithm = reader.u32()
    reader.u16()  # the mode of encryption, which is CBC
    size = reader.u16()
    if algorithm != ALG_AES128 or size != AES_SIZE:
        raise reader.invalid("not an AES-128 key")
    return reader.take(size)


def encode_attestation(initial: bytes, encrypted: bytes) -> bytes:
    """Return the TPM_SYM_CA_ATTESTATION of what AES-128-CBC encrypted (12.7).

    Args:
        initial: its initial value.
    """
    parameters = struct.pack(">III", AES_SIZE * 8, AES_SIZE * 8, len(initial)) + initial
    algorithm = _KEY_PARMS.pack(ALG_AES128, ES_SYM_CBC, SS_NONE, len(parameters)) + parameters
    return struct.pack(">I", len(encrypted)) + algorithm + encrypted


def parse_attestation(untrusted: bytes) -> tuple[bytes, bytes]:
    """Return (initial value, encrypted) of a TPM_SYM_CA_ATTESTATION (12.7).

    Raises:
        InvalidMessage: encrypted otherwise than by AES-128-CBC, or bytes left over.
    """
    reader = _bounded(untrusted, "TPM_SYM_CA_ATTESTATION", MAX_ATTESTATION_SIZE)
    size = reader.u32()
    expected = encode_attestation(bytes(AES_SIZE), b"")[4:-AES_SIZE]
    if reader.take(len(expected)) != expected:
        raise reader.invalid("not encrypted by AES-128-CBC")
    initial = reader.take(AES_SIZE)
    encrypted = reader.take(size)
    reader.end()
    return initial, encrypted


def external_data(qualifying_data: bytes) -> bytes:
    """Return the 20 bytes that stand for 32 bytes of qualifying data in a TPM 1.2 quote.

    The first 20 bytes, not their SHA-1: they are a SHA-256 already, and truncating it costs length,
    but does not rest on SHA-1 (NIST SP 800-107, 5.1).
    """
    return qualifying_data[:DIGEST_SIZE]


def sha1(content: bytes) -> bytes:
    """Return the SHA-1 that a TPM 1.2 prescribes; nothing else may use it for trust."""
    return hashlib.sha1(content, usedforsecurity=False).digest()


def _quote2(reader: TpmReader) -> Quote12:
    external = reader.take(DIGEST_SIZE)
    info = take_pcr_info_short(reader)
    if reader.left:
        _take_version_info(reader)
    return Quote12(external, info.selection, info.composite_digest)


def _take_version_info(reader: TpmReader) -> None:
    """Pass over a TPM_CAP_VERSION_INFO (21.6): make and firmware, which nothing here rests on."""
    if reader.u16() != TAG_CAP_VERSION_INFO:
        raise reader.invalid("neither an end nor a TPM_CAP_VERSION_INFO")
    reader.take(11)  # version, specification level, errata, vendor
    reader.sized(_MAX_VENDOR_SIZE)


def _take_rsa_parameters(reader: TpmReader) -> _RsaParameters:
    """Return the TPM_KEY_PARMS at the cursor (10.1, 10.4)."""
    head = reader.take(_KEY_PARMS.size)
    algorithm, encryption, signature, size = _KEY_PARMS.unpack(head)
    if algorithm != ALG_RSA:
        raise reader.invalid(f"unknown key type {algorithm:#010x}")
    body = reader.take(size)
    inner = TpmReader(body, "TPM_RSA_KEY_PARMS")
    bits = inner.u32()
    primes = inner.u32()
    # An empty exponent means the default one.
    exponent = int.from_bytes(_take_long(inner, _MAX_EXPONENT_SIZE), "big") or 65537
    inner.end()
    if primes != 2 or exponent != 65537:
        raise reader.invalid("not an RSA key with two primes and the exponent 65537")
    return _RsaParameters(head + body, encryption, signature, bits)


def _public_key(reader: TpmReader, parameters: _RsaParameters) -> PublicKey:
    """Return the TPM_PUBKEY of parameters and the TPM_STORE_PUBKEY at the cursor (10.2)."""
    modulus = _take_long(reader, MAX_RSA_SIZE)
    # EK, SRK and identity keys have 2048 bits (Part 1, 31.2.1).
    if parameters.bits != 2048 or len(modulus) != 256 or not modulus[0] & 0x80:
        raise reader.invalid("an RSA modulus that has not 2048 bits")
    key = RsaKey(2048, 65537, int.from_bytes(modulus, "big"))
    return PublicKey(
        parameters.area + _long(modulus), parameters.encryption, parameters.signature, key
    )


def _take_long(reader: TpmReader, most: int) -> bytes:
    """Return a byte string with a four-byte length before it, at most `most` bytes."""
    size = reader.u32()
    if size > most:
        raise reader.invalid(f"a field of {size} bytes, at most {most} are allowed")
    return reader.take(size)


def _long(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _bounded(untrusted: bytes, what: str, most: int) -> TpmReader:
    if len(untrusted) > most:
        raise errors.InvalidMessage(what, f"longer than {most} bytes")
    return TpmReader(untrusted, what)
