# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The TPM 1.2 of a host, and whether a quote of it is genuine: checks (3) and (2).

What this family changes in the checks of `appraise.py`:

 (1) the identity key was bound to an endorsed EK by TPM_ActivateIdentity (`endorsement12.py`)
 (2) the signed bytes are a TPM_QUOTE_INFO or TPM_QUOTE_INFO2
 (3) their signature is by that key: RSA with SHA-1, since the chip has no other
 (4) their external data is the first 20 bytes of what a TPM 2.0 would sign
 (5) cannot be made: there is no counter of resets. That a boot id is of the boot quoted rests on
     the host's word, and a kernel that was started by kexec is not noticed
 (6), (9) the composite digest covers the selection together with the values; "QUT2" names the
     selection besides
(10) cannot be made: nothing in the quote says which EK the key hangs under. Enrolment alone has
     established it

SHA-1 resists the forger that matters here, who needs a second preimage, and no longer one who
prepares two messages with the same digest. A TPM signs no message that its user prepared; yet that
is all that stands in between.
"""

from __future__ import annotations

import dataclasses
import hmac
from typing import ClassVar, Union

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import public_keys, tpm2, tpm12
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import SignedQuote

# DigestInfo of a SHA-1 (RFC 8017, 9.2, note 1).
_SHA1_INFO = bytes.fromhex("3021300906052b0e03021a05000414")


@dataclasses.dataclass(frozen=True)
class EnrolledTpm12:
    """EK and AK of a TPM 1.2 that enrolment bound to a host name; the AK is an identity key."""

    name: str
    ek: tpm12.PublicKey
    ak: tpm12.PublicKey
    family: ClassVar[str] = "1.2"
    bank: ClassVar[str] = tpm12.BANK

    def check_quote(
        self, attest: bytes, signature: bytes, reported: tpm2.PcrValues
    ) -> Union[SignedQuote, Finding]:
        """As in `EnrolledTpm`."""
        quote = check_quote(attest, signature, self.ak)
        if isinstance(quote, Finding):
            return quote
        return SignedQuote(
            quote.qualifying_data, quote.selection(reported), quote.pcr_digest, counters=None
        )

    def signed_part(self, qualifying_data: bytes) -> bytes:
        """Return its first 20 bytes."""
        return tpm12.external_data(qualifying_data)

    def pcr_digest(self, selection: tpm2.Selection, values: tpm2.PcrValues) -> bytes:
        """Return the SHA-1 of the composite; as in `EnrolledTpm`."""
        return tpm12.pcr_digest(selection, values)


def check_quote(
    attest: bytes, signature: bytes, ak: tpm12.PublicKey
) -> Union[tpm12.Quote12, Finding]:
    """Return the quote in `attest` if that identity key made it, else the first failed check."""
    if not verify(ak, attest, signature):  # (3)
        return FindingCode.BAD_SIGNATURE.finding("the quote is not signed by the host's AK")
    try:
        return tpm12.parse_quote(attest)  # (2)
    except errors.InvalidMessage as e:
        return FindingCode.NOT_A_QUOTE.finding(str(e))


def verify(key: tpm12.PublicKey, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` over `message` is by that key of a TPM 1.2."""
    return verify_sha1(public_keys.load_rsa(key.key), message, signature)


def verify_sha1(key: rsa.RSAPublicKey, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` is RSASSA-PKCS1-v1_5 with SHA-1 over `message`.

    The digest is compared here: EL9's cryptographic policy has OpenSSL refuse all such signatures,
    while these hosts are believed only where the administrator says so.
    """
    try:
        recovered = key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
    except InvalidSignature:
        return False
    return hmac.compare_digest(recovered, _SHA1_INFO + tpm12.sha1(message))
