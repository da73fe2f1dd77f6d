# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""An independent look at keys and quotes.

By `cryptography` and tpm2-tools only, none of the verifier's code.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Union

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ovirt_tcp_plugin.messages import tpm2

PublicKey = Union[rsa.RSAPublicKey, ec.EllipticCurvePublicKey]


def public_key(area: bytes) -> PublicKey:
    """Return the key in a TPMT_PUBLIC."""
    key = tpm2.parse_public(area).key
    if isinstance(key, tpm2.RsaKey):
        return rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
    return ec.EllipticCurvePublicNumbers(key.x, key.y, ec.SECP256R1()).public_key()


def check_signature(area: bytes, attest: bytes, signature: bytes) -> None:
    """Raise InvalidSignature when the key did not sign `attest` by SHA-256."""
    parsed, key = tpm2.parse_signature(signature), public_key(area)
    if isinstance(key, rsa.RSAPublicKey):
        assert isinstance(parsed, tpm2.RsaSignature)
        key.verify(parsed.value, attest, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(parsed, tpm2.EcdsaSignature)
        key.verify(encode_dss_signature(parsed.r, parsed.s), attest, ec.ECDSA(hashes.SHA256()))


def checkquote(
    area: bytes, attest: bytes, signature: bytes, qualifying_data: bytes, directory: Path
) -> str:
    """Return the output of tpm2_checkquote, which raises when the quote is not good."""
    pem = public_key(area).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for name, content in (("ak.pem", pem), ("attest", attest), ("signature", signature)):
        (directory / name).write_bytes(content)
    return tool(
        directory,
        *("tpm2_checkquote", "-u", "ak.pem", "-m", "attest", "-s", "signature", "-g", "sha256"),
        *("-q", qualifying_data.hex()),
    )


def make_credential(
    ek_area: bytes, ak_name: bytes, secret: bytes, directory: Path
) -> tuple[bytes, bytes]:
    """Return (credential, encrypted secret) of tpm2_makecredential for an RSA EK."""
    key = public_key(ek_area)
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (directory / "ek.pem").write_bytes(pem)
    (directory / "secret").write_bytes(secret)
    tool(
        directory,
        *("tpm2_makecredential", "-T", "none", "-G", "rsa", "-u", "ek.pem", "-s", "secret"),
        *("-n", ak_name.hex(), "-o", "credential"),
    )
    content = (directory / "credential").read_bytes()
    assert content[:8] == bytes.fromhex("badcc0de00000001")
    (size,) = struct.unpack_from(">H", content, 8)
    credential, rest = content[10 : 10 + size], content[10 + size :]
    return credential, rest[2:]


def tool(directory: Path, *command: str) -> str:
    """Return the output of a program run in `directory`."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout
