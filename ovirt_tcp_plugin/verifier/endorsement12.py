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
from collections.abc import Iterable
from typing import Optional

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import public_keys, tpm12
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader
from ovirt_tcp_plugin.verifier import endorsement
from ovirt_tcp_plugin.verifier.appraisal import quote12

SEED_SIZE = 2 * tpm12.AES_SIZE

_OAEP_LABEL = b"TCPA"  # TPM_ES_RSAESOAEP_SHA1_MGF1 (Part 1, 31.1.1)
# Object identifiers of the key in an EK certificate, DER: rsaEncryption, and rsaesOaep, which TCG
# recommended.
_RSA_KEYS = (bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d010107"))
_SEQUENCE = 0x30
_BIT_STRING = 0x03
_BEFORE_KEY = 6  # version, serial number, signature, issuer, validity, subject (RFC 5280, 4.1)


def check_ek(ek: tpm12.PublicKey) -> None:
    """Return if the key is one that decrypts only.

    Raises:
        Refused: ek_attributes.
    """
    if (ek.encryption_scheme, ek.signature_scheme) != (tpm12.ES_RSAES_OAEP, tpm12.SS_NONE):
        raise errors.Refused("ek_attributes", "the EK is not a decryption key with OAEP padding")


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
) -> None:
    """Return if a vendor's authority vouches for `ek` at `now` (UTC).

    The path is checked by OpenSSL from the issuer upwards, and the last step here: OpenSSL cannot
    read a certificate whose key is marked rsaesOaep, as those of TPM 1.2 are, and need not like
    SHA-1.

    Args:
        certificate: DER of the EK certificate.
        authorities: roots and intermediates of `ek-ca.d`; empty means that nobody is believed.

    Raises:
        Refused: ek_certificate_malformed, ek_untrusted, ek_usage, ek_key_differs or ek_attributes.
    """
    check_ek(ek)
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        certified = certified_key(parsed.tbs_certificate_bytes)
        usages = endorsement.extended_usages(parsed)
        _check_extensions(parsed)
        known = list(authorities)
        issuer = _issuer(parsed, known)
    except (*public_keys.UNREADABLE, errors.InvalidMessage) as e:
        raise errors.Refused("ek_certificate_malformed", "the EK certificate cannot be read") from e
    _check_life(parsed, now)
    if issuer is None:
        reason = "no EK authority vouches for this TPM: none has signed its certificate"
        raise errors.Refused("ek_untrusted", reason)
    endorsement.check_path(issuer, known, now)
    if endorsement.EK_CERTIFICATE_USAGE not in usages:
        reason = "the certificate is not one of an endorsement key (EKU 2.23.133.8.1)"
        raise errors.Refused("ek_usage", reason)
    presented = public_keys.load_rsa(ek.key)
    if certified.public_numbers() != presented.public_numbers():
        reason = "the EK certificate is for another key than the one presented"
        raise errors.Refused("ek_key_differs", reason)


def certified_key(tbs: bytes) -> rsa.RSAPublicKey:
    """Return the RSA key in the TBSCertificate of an EK certificate (RFC 5280, 4.1; RFC 4055, 1.2).

    Raises:
        InvalidMessage: it has another form.
        ValueError: its key is none.
    """
    body = _content(TpmReader(tbs, "EK certificate"), _SEQUENCE)
    for _ in range(_BEFORE_KEY):
        _take_element(body)
    information = _content(body, _SEQUENCE)
    _, algorithm = _take_element(information)
    bits = _content(information, _BIT_STRING)
    if not algorithm.startswith(_RSA_KEYS) or bits.u8() != 0:
        raise body.invalid("its key is not RSA")
    key = serialization.load_der_public_key(bits.take(bits.left))
    if not isinstance(key, rsa.RSAPublicKey):
        raise body.invalid("its key is not RSA")
    return key


def _issuer(
    certificate: x509.Certificate, authorities: Iterable[crypto.X509]
) -> Optional[crypto.X509]:
    """Return the authority that signed the certificate, None if there is none.

    It must be one that may sign certificates at all.
    """
    for authority in authorities:
        candidate = authority.to_cryptography()
        if (
            candidate.subject == certificate.issuer
            and _is_authority(candidate)
            and _signed(certificate, candidate)
        ):
            return authority
    return None


def _is_authority(certificate: x509.Certificate) -> bool:
    """Return whether the certificate may sign others (RFC 5280, 6.1.4 k, n)."""
    extensions = {type(extension.value): extension.value for extension in certificate.extensions}
    constraints = extensions.get(x509.BasicConstraints)
    usage = extensions.get(x509.KeyUsage)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        return False
    return not isinstance(usage, x509.KeyUsage) or usage.key_cert_sign


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether the authority signed the certificate.

    By RSASSA-PKCS1-v1_5, as all vendors did at that time.
    """
    key = authority.public_key()
    algorithm = certificate.signature_hash_algorithm
    if not isinstance(key, rsa.RSAPublicKey) or algorithm is None:
        return False
    signed = certificate.tbs_certificate_bytes
    signature = certificate.signature
    if isinstance(algorithm, hashes.SHA1):
        return quote12.verify_sha1(key, signed, signature)
    try:
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True


def _check_extensions(certificate: x509.Certificate) -> None:
    """Return if each critical extension is of a known kind (RFC 5280, 6.1.5 f).

    Raises ValueError.
    """
    for extension in certificate.extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            raise ValueError(extension.oid.dotted_string)


def _check_life(certificate: x509.Certificate, now: datetime.datetime) -> None:
    begin, end = public_keys.life(certificate)
    if not begin <= now <= end:
        raise errors.Refused("ek_untrusted", "the EK certificate is not valid yet, or no longer")


def _content(reader: TpmReader, expected: int) -> TpmReader:
    tag, content = _take_element(reader)
    if tag != expected:
        raise reader.invalid("another form than a certificate's")
    return TpmReader(content, "EK certificate")


def _take_element(reader: TpmReader) -> tuple[int, bytes]:
    """Return tag and content of the DER element at the cursor."""
    tag = reader.u8()
    size = reader.u8()
    if size & 0x80:
        size = int.from_bytes(reader.take(size & 0x7F), "big")
    return tag, reader.take(size)
