# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The Privacy CA's questions at the enrolment of a TPM 1.2.

Is this EK of a genuine TPM, is this AK an identity key of it?

Sources: "TCG Credential Profiles" 1.2; "TPM Main Specification" 1.2 revision 116, Part 3, 15
(identities). No I/O; the seed is an argument, while the OAEP padding is drawn by `cryptography`.

That a key is an identity key, and so signs nothing but what its TPM made itself, is proven by one
thing only: its TPM activates no other. What the host says of the key's usage serves for a clear
refusal.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Optional

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import public_keys, tpm12, vendor_certificate
from ovirt_tcp_plugin.messages.public_keys import VerifyingKey
from ovirt_tcp_plugin.messages.vendor_certificate import VendorCertificate
from ovirt_tcp_plugin.verifier import endorsement, vendor_path
from ovirt_tcp_plugin.verifier.appraisal import quote12

SEED_SIZE = 2 * tpm12.AES_SIZE

_OAEP_LABEL = b"TCPA"  # TPM_ES_RSAESOAEP_SHA1_MGF1 (Part 1, 31.1.1)
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
# Extensions that may be critical in an EK certificate (TCG Credential Profiles 1.2, 3.2), dotted:
# directory attributes, key usage, alternative names, constraints, policies, extended key usage.
_EXTENSIONS = frozenset(
    f"2.5.29.{number}" for number in (9, 14, 15, 17, 18, 19, 30, 31, 32, 33, 35, 36, 37)
)


def check_ek(ek: tpm12.PublicKey) -> None:
    """Return if the key is one that decrypts only.

    Raises:
        Refused: ek_attributes or ek_weak.
        InvalidMessage: it is no key.
    """
    if (ek.encryption_scheme, ek.signature_scheme) != (tpm12.ES_RSAES_OAEP, tpm12.SS_NONE):
        raise errors.Refused("ek_attributes", "the EK is not a decryption key with OAEP padding")
    vendor_path.check_key(public_keys.load_rsa(ek.key), "the endorsement key")


def check_identity(key: tpm12.Key, label_digest: bytes, binding: bytes) -> None:
    """Return if the host calls the key an identity key, made for this enrolment.

    Args:
        label_digest: what TPM_MakeIdentity was to bind the key to, 20 bytes.
        binding: the key's signature over the TPM_IDENTITY_CONTENTS.

    Raises:
        Refused: ak_unrestricted, ak_attributes, ak_scheme or ak_binding.
    """
    if key.usage != tpm12.USAGE_IDENTITY:
        reason = "the AK is not an identity key: it would sign quotes that no TPM made"
        raise errors.Refused("ak_unrestricted", reason)
    if key.flags & tpm12.MIGRATABLE:
        raise errors.Refused("ak_attributes", "the AK is not fixed in its TPM")
    if key.public.signature_scheme != tpm12.SS_RSASSA_SHA1:
        reason = "the AK must sign by RSASSA with SHA-1, as each TPM 1.2 quotes"
        raise errors.Refused("ak_scheme", reason)
    contents = tpm12.identity_contents(label_digest, key.public)
    if not quote12.verify(key.public, contents, binding):
        raise errors.Refused("ak_binding", "the AK was not made for this enrolment")


def make_credential(
    ek: tpm12.PublicKey, ak: tpm12.PublicKey, secret: bytes, seed: bytes
) -> tuple[bytes, bytes]:
    """Return what only the TPM with this EK *and* this AK can read.

    (TPM_SYM_CA_ATTESTATION, encrypted TPM_ASYM_CA_CONTENTS).

    Args:
        secret: what only it shall read.
        seed: SEED_SIZE fresh random bytes: the AES key, which the TPM gives for that AK only, and
            the initial value.
    """
    if len(seed) != SEED_SIZE:
        raise ValueError(f"the seed has not {SEED_SIZE} bytes")
    aes_key = seed[: tpm12.AES_SIZE]
    initial = seed[tpm12.AES_SIZE :]
    encrypted = _encrypt(aes_key, initial, secret)
    sha1 = hashes.SHA1()  # noqa: S303 - as padding it need not resist collisions
    oaep = padding.OAEP(padding.MGF1(sha1), sha1, _OAEP_LABEL)
    contents = tpm12.encode_asym_ca_contents(aes_key, ak)
    encrypted_contents = public_keys.load_rsa(ek.key).encrypt(contents, oaep)
    return tpm12.encode_attestation(initial, encrypted), encrypted_contents


def _encrypt(key: bytes, initial: bytes, secret: bytes) -> bytes:
    """Return the secret by AES-CBC with PKCS #7 padding."""
    padder = block_padding.PKCS7(tpm12.AES_SIZE * 8).padder()
    padded = padder.update(secret) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(initial)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def check_ek_certificate(
    certificate: bytes,
    ek: tpm12.PublicKey,
    authorities: Iterable[crypto.X509],
    now: datetime.datetime,
) -> tuple[bytes, ...]:
    """Return the path (DER) by which a vendor's authority vouches for `ek` at `now` (UTC).

    The path is checked by OpenSSL from the issuer upwards, and the last step here: OpenSSL cannot
    read a certificate whose key is marked rsaesOaep, as those of TPM 1.2 are, and need not like
    SHA-1.

    Args:
        certificate: DER of the EK certificate.
        authorities: roots and intermediates of `ek-ca.d`; empty means that nobody is believed.

    Raises:
        Refused: ek_certificate_malformed, ek_untrusted, ek_expired, ek_weak, ek_usage,
            ek_key_differs or ek_attributes.
    """
    check_ek(ek)
    try:
        fields = vendor_certificate.read(certificate)
        certified = public_keys.encode(fields.key())
        _check_extensions(fields)
    except errors.InvalidMessage as e:
        reason = f"the EK certificate cannot be read: {e}"
        raise errors.Refused("ek_certificate_malformed", reason) from e
    known = list(authorities)
    _check_life(fields, now)
    issuer = _issuer(fields, known)
    if issuer is None:
        reason = "no EK authority vouches for this TPM: none has signed its certificate"
        raise errors.Refused("ek_untrusted", reason)
    path = vendor_path.check(issuer, known, now, vendor_path.TPM12_HASHES)
    endorsement.check_usage(fields)
    if certified != public_keys.encode(public_keys.load_rsa(ek.key)):
        reason = "the EK certificate is for another key than the one presented"
        raise errors.Refused("ek_key_differs", reason)
    return (certificate, *path)


def _issuer(
    certificate: VendorCertificate, authorities: Iterable[crypto.X509]
) -> Optional[crypto.X509]:
    """Return the authority that signed the certificate, None if there is none.

    It must be one that may sign certificates at all.
    """
    for authority in authorities:
        try:
            candidate = vendor_path.read(authority)
            if candidate.is_authority and _signed(certificate, candidate.key()):
                return authority
        except errors.InvalidMessage:
            # It vouches for chips of another family.
            continue
    return None


def _signed(certificate: VendorCertificate, key: VerifyingKey) -> bool:
    """Return whether this key of an authority signed the certificate.

    By RSASSA-PKCS1-v1_5, as all vendors did at that time.
    """
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    if certificate.signature_hash == "sha1":
        return quote12.verify_sha1(key, certificate.signed, certificate.signature)
    algorithm = _HASHES.get(certificate.signature_hash)
    if algorithm is None:
        return False
    try:
        key.verify(certificate.signature, certificate.signed, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True


def _check_extensions(certificate: VendorCertificate) -> None:
    """Return if each critical extension is of a known kind (RFC 5280, 6.1.5 f).

    Raises InvalidMessage.
    """
    unknown = sorted(certificate.critical - _EXTENSIONS)
    if unknown:
        raise errors.InvalidMessage("certificate", f"a critical extension {unknown[0]}")


def _check_life(certificate: VendorCertificate, now: datetime.datetime) -> None:
    if now < certificate.begin:
        reason = f"the EK certificate is not valid before {certificate.begin:%Y-%m-%d}"
        raise errors.Refused("ek_untrusted", f"{reason}: is this server's clock right?")
    if now > certificate.end:
        reason = f"the EK certificate ended on {certificate.end:%Y-%m-%d}"
        raise errors.Refused("ek_expired", f"{reason}; {vendor_path.BELIEVE_THIS_CHIP}")
