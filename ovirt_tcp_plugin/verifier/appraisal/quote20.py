# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The TPM 2.0 of a host, and whether a quote of it is genuine: checks (3), (2) and (10)."""

from __future__ import annotations

import dataclasses
import functools
import hmac
from collections.abc import Mapping
from typing import ClassVar, Union

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import public_keys, tpm2
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import Counters, SignedQuote

# SHA-1 is absent: collisions are affordable, and no TPM 2.0 needs it (check 3).
SIGNATURE_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclasses.dataclass(frozen=True)
class EnrolledTpm20:
    """EK and AK of a TPM 2.0 that enrolment bound to a host name."""

    name: str
    ek: tpm2.Public
    ak: tpm2.Public
    family: ClassVar[str] = "2.0"
    bank: ClassVar[str] = "sha256"

    @functools.cached_property
    def verifying_key(self) -> public_keys.VerifyingKey:
        """The AK for `cryptography`. Raises InvalidMessage as `public_keys.load` does."""
        return public_keys.load(self.ak)

    @functools.cached_property
    def qualified_signer(self) -> bytes:
        """What the AK's quotes name as their signer."""
        return tpm2.qualified_name(self.ek, self.ak)

    def check_quote(
        self, attest: bytes, signature: bytes, reported: tpm2.PcrValues
    ) -> Union[SignedQuote, Finding]:
        """As in `EnrolledTpm`; a quote of this family names its PCRs itself."""
        try:
            parsed_signature = tpm2.parse_signature(signature)
        except errors.InvalidMessage as e:
            return FindingCode.MALFORMED.finding(str(e))
        if not self.verify(attest, parsed_signature):  # (3)
            return FindingCode.BAD_SIGNATURE.finding("the quote is not signed by the host's AK")
        try:
            quote = tpm2.parse_quote(attest)  # (2)
        except errors.InvalidMessage as e:
            return FindingCode.NOT_A_QUOTE.finding(str(e))
        if not hmac.compare_digest(quote.qualified_signer, self.qualified_signer):  # (10)
            return FindingCode.WRONG_SIGNER.finding(
                "the AK does not hang under the host's EK",
                expected=self.qualified_signer.hex(),
                seen=quote.qualified_signer.hex(),
            )
        counters = Counters(quote.reset_count, quote.restart_count, quote.clock, quote.safe)
        return SignedQuote(quote.qualifying_data, quote.selection, quote.pcr_digest, counters)

    def verify(self, message: bytes, signature: tpm2.Signature) -> bool:
        """Return whether the AK signed `message`, in the one scheme and hash that it has."""
        algorithm = SIGNATURE_HASHES.get(signature.hash_name)
        if algorithm is None or signature.hash_name != self.ak.scheme_hash:
            return False
        key = self.verifying_key
        if isinstance(key, ec.EllipticCurvePublicKey):
            return _verify_ecdsa(key, message, signature, algorithm)
        return _verify_rsa(key, message, signature, algorithm, self.ak.scheme)

    def signed_part(self, qualifying_data: bytes) -> bytes:
        """Return all of it."""
        return qualifying_data

    def pcr_digest(self, selection: tpm2.Selection, values: tpm2.PcrValues) -> bytes:
        """Return the digest in the hash of the AK's scheme (Part 3, 18.4); as in `EnrolledTpm`."""
        return tpm2.pcr_digest(self.ak.scheme_hash, selection, values)


def _verify_ecdsa(
    key: ec.EllipticCurvePublicKey,
    message: bytes,
    signature: tpm2.Signature,
    algorithm: hashes.HashAlgorithm,
) -> bool:
    if not isinstance(signature, tpm2.EcdsaSignature):
        return False
    encoded = encode_dss_signature(signature.r, signature.s)
    try:
        key.verify(encoded, message, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _verify_rsa(
    key: rsa.RSAPublicKey,
    message: bytes,
    signature: tpm2.Signature,
    algorithm: hashes.HashAlgorithm,
    scheme: int,
) -> bool:
    if not isinstance(signature, tpm2.RsaSignature) or signature.scheme != scheme:
        return False
    try:
        key.verify(signature.value, message, _padding(scheme, algorithm), algorithm)
    except InvalidSignature:
        return False
    return True


def _padding(scheme: int, algorithm: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if scheme == tpm2.ALG_RSASSA:
        return padding.PKCS1v15()
    # Part 1, B.7: the salt is as long as the hash, or as long as the key allows in older TPMs.
    return padding.PSS(mgf=padding.MGF1(algorithm), salt_length=padding.PSS.AUTO)
