# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""From which templates a TPM may make the EK that its vendor certified.

Most vendors use the specification's. Some keep another one, or a nonce that goes into it, in NV
indices beside the certificate. Only the TPM's answer shows which is right: the key that is
certified.

Source: TCG "EK Credential Profile for TPM Family 2.0" 2.6, 2.2.1.4 and 2.2.1.5 (indices) and B.2
(where the nonce goes).
"""

from __future__ import annotations

import logging
import struct

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.templates import EndorsementKind
from ovirt_tcp_plugin.attester.tpm import RC_AGAIN, Tpm, TpmError
from ovirt_tcp_plugin.messages import tpm2
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader

log = logging.getLogger("attester.keys")

_WHAT = "EK template"
_HEAD = struct.Struct(">HHI")  # type, name hash, attributes
_COORDINATE_SIZES = {number: (bits + 7) // 8 for number, bits in ((3, 256), (4, 384), (5, 521))}


def read_optional(tpm: Tpm, index: int) -> bytes:
    """Return the content of an NV index, nothing if there is none or it cannot be read.

    Raises:
        Unavailable: the TPM does not answer, or cannot read it just now.
    """
    try:
        return tpm.read_nv(index)
    except TpmError as e:
        if e.code in RC_AGAIN:
            raise  # it may have one
        if not e.handle_gone:
            log.warning("unreadable index=%#x reason=%s", index, e)
    except errors.InvalidMessage as e:
        log.warning("unreadable index=%#x reason=%s", index, e)
    return b""


def templates(tpm: Tpm, kind: EndorsementKind) -> list[bytes]:
    """Return the templates of an EK, the likeliest first; the specification's is the last.

    Raises:
        Unavailable: the TPM does not answer.
    """
    stored = _without_unique(read_optional(tpm, kind.template_index))
    nonce = read_optional(tpm, kind.nonce_index) if kind.nonce_index else b""
    likely = []
    for template in (stored, kind.template):
        if template and nonce:
            likely.append(with_nonce(template, nonce))
    likely += [stored, kind.template]
    return [template for template in dict.fromkeys(likely) if template]


def with_nonce(template: bytes, nonce: bytes) -> bytes:
    """Return a template whose unique field begins with the nonce; nothing if it does not fit."""
    start, sizes = _unique_of(template)
    if len(nonce) > sizes[0]:
        log.warning("no nonce size=%d most=%d", len(nonce), sizes[0])
        return b""
    parts = [nonce.ljust(sizes[0], b"\0"), *(bytes(size) for size in sizes[1:])]
    unique = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    return template[:start] + unique


def _without_unique(content: bytes) -> bytes:
    """Return the template at the start of an NV index, nothing if there is none."""
    if not content:
        return b""
    try:
        start, sizes = _unique_of(content)
        reader = TpmReader(content[start:], _WHAT)
        for size in sizes:
            reader.sized(size)
    except errors.InvalidMessage as e:
        log.warning("no template reason=%s", e)
        return b""
    return content[: start + reader.position]


def _unique_of(template: bytes) -> tuple[int, list[int]]:
    """Return where the unique field of a TPMT_PUBLIC begins, and the bytes of its parts.

    Raises:
        InvalidMessage: it is none, or of a key that is no EK.
    """
    reader = TpmReader(template, _WHAT)
    kind, _, _ = reader.unpack(_HEAD)
    reader.sized(tpm2.MAX_DIGEST_SIZE)
    if reader.u16() != tpm2.ALG_NULL:  # symmetric algorithm
        reader.take(4)
    if reader.u16() != tpm2.ALG_NULL:  # scheme
        reader.take(2)
    if kind == tpm2.ALG_RSA:
        bits = reader.u16()
        reader.u32()
        return reader.position, [bits // 8]
    if kind != tpm2.ALG_ECC:
        raise reader.invalid(f"a key of kind {kind:#06x}")
    curve = reader.u16()
    if reader.u16() != tpm2.ALG_NULL:  # key derivation
        reader.take(2)
    if curve not in _COORDINATE_SIZES:
        raise reader.invalid(f"curve {curve:#06x}")
    return reader.position, [_COORDINATE_SIZES[curve]] * 2
