# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The Privacy CA's questions at enrolment.

Is this EK of a genuine TPM, is this AK fit to quote, are both in one TPM?

Sources: TCG "EK Credential Profile" 2.5; TPM library Part 1, 24 (credential protection), 11.4.10
(KDFa, KDFe) and annexes B.10.4, C.6.4 (secret sharing). No I/O; the seed is an argument, while the
OAEP padding and the ephemeral ECC key are drawn by `cryptography`.

Not established: that the chip is in the machine whose name is enrolled. The token says so, on the
word of whoever placed it there; a relay to another machine's TPM at that time is not detectable.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import struct
from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import public_keys, tpm2, vendor_certificate
from ovirt_tcp_plugin.messages.vendor_certificate import VendorCertificate
from ovirt_tcp_plugin.verifier import vendor_path
from ovirt_tcp_plugin.verifier.appraisal.quote20 import SIGNATURE_HASHES

try:  # cryptography moved CFB; the TPM library prescribes it
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:
    from cryptography.hazmat.primitives.ciphers.modes import CFB

_AK_REQUIRED = (
    tpm2.FIXED_TPM | tpm2.FIXED_PARENT | tpm2.SENSITIVE_DATA_ORIGIN | tpm2.RESTRICTED | tpm2.SIGN
)
_EK_REQUIRED = (
    tpm2.FIXED_TPM | tpm2.FIXED_PARENT | tpm2.SENSITIVE_DATA_ORIGIN | tpm2.RESTRICTED | tpm2.DECRYPT
)
_PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"
_TRUSTED_BEGIN = b"-----BEGIN TRUSTED CERTIFICATE-----"
_DER_BEGIN = b"\x30\x82"
# With the text that some put after one, such as what `openssl x509 -text` prints.
MAX_PEM_BLOCK_SIZE = 64 * 1024
# Of one file. Keylime's whole store of vendors has some hundred.
MAX_AUTHORITIES = 400
_NAME_HASHES = ("sha256", "sha384", "sha512")
_OAEP_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def check_ek_certificate(
    certificate: bytes,
    ek: tpm2.Public,
    authorities: Iterable[crypto.X509],
    now: datetime.datetime,
    intermediates: Sequence[bytes] = (),
) -> tuple[bytes, ...]:
    """Return the path (DER) by which a vendor's authority vouches for `ek` at `now` (UTC).

    The path check is OpenSSL's own; usage and key are compared here, because the default purposes
    of path checkers know nothing of EK certificates.

    Args:
        certificate: DER of the EK certificate.
        authorities: roots and intermediates of `ek-ca.d`; empty means that nobody is believed.
        intermediates: DER of the authorities that the TPM sent along, to build the path only.

    Raises:
        Refused: ek_certificate_malformed, ek_untrusted, ek_expired, ek_weak, ek_usage,
            ek_key_differs or ek_attributes.
    """
    check_ek(ek)
    try:
        fields = vendor_certificate.read(certificate)
        for_openssl = crypto.load_certificate(crypto.FILETYPE_ASN1, certificate)
        certified_key = public_keys.encode(fields.key())
    except (errors.InvalidMessage, crypto.Error) as e:
        reason = f"the EK certificate cannot be read: {e}"
        raise errors.Refused("ek_certificate_malformed", reason) from e
    path = vendor_path.check(
        for_openssl, authorities, now, intermediates=vendor_path.load(intermediates)
    )
    check_usage(fields)
    presented_key = public_keys.encode(public_keys.load(ek))
    if not hmac.compare_digest(certified_key, presented_key):
        reason = "the EK certificate is for another key than the one presented"
        raise errors.Refused("ek_key_differs", reason)
    return path


def check_usage(certificate: VendorCertificate) -> None:
    """Return if a certificate is one of an endorsement key. Raises Refused (ek_usage)."""
    if vendor_certificate.EK_USAGE in certificate.usages:
        return
    usages = ", ".join(sorted(certificate.usages)) or "none"
    reason = (
        f"the certificate is not one of an endorsement key: its extended key usage is {usages}, "
        f"not {vendor_certificate.EK_USAGE}; {vendor_path.BELIEVE_THIS_CHIP}"
    )
    raise errors.Refused("ek_usage", reason)


def check_ek(ek: tpm2.Public) -> None:
    """Return if the key is a strong storage key that never leaves its TPM.

    Raises:
        Refused: ek_attributes or ek_weak.
        InvalidMessage: it is no key.
    """
    if ek.attributes & _EK_REQUIRED != _EK_REQUIRED or ek.attributes & tpm2.SIGN:
        reason = "the EK is not a restricted decryption key fixed in its TPM"
        raise errors.Refused("ek_attributes", reason)
    if ek.name_hash not in _NAME_HASHES or not ek.symmetric_bits:
        reason = "the EK's name hash or symmetric algorithm is too weak"
        raise errors.Refused("ek_attributes", reason)
    vendor_path.check_key(public_keys.load(ek), "the endorsement key")


def check_ak(ak: tpm2.Public) -> None:
    """Return if the key can sign nothing but what its TPM made itself.

    An unrestricted key would sign a made-up TPMS_ATTEST as readily as a true one.

    Raises:
        Refused: ak_unrestricted, ak_attributes or ak_scheme.
    """
    if not ak.attributes & tpm2.RESTRICTED:
        raise errors.Refused(
            "ak_unrestricted", "the AK is not restricted: it would sign quotes that no TPM made"
        )
    if ak.attributes & _AK_REQUIRED != _AK_REQUIRED or ak.attributes & tpm2.DECRYPT:
        raise errors.Refused("ak_attributes", "the AK is not a signing key fixed in its TPM")
    if ak.name_hash not in _NAME_HASHES:
        raise errors.Refused(
            "ak_attributes", f"the AK's name hash is {ak.name_hash}, at least sha256 is needed"
        )
    schemes = (
        (tpm2.ALG_RSASSA, tpm2.ALG_RSAPSS) if isinstance(ak.key, tpm2.RsaKey) else (tpm2.ALG_ECDSA,)
    )
    if ak.scheme not in schemes or ak.scheme_hash not in SIGNATURE_HASHES:
        raise errors.Refused(
            "ak_scheme", "the AK must sign by RSASSA, RSAPSS or ECDSA with at least SHA-256"
        )
    public_keys.load(ak)


def make_credential(
    ek: tpm2.Public, ak_name: bytes, secret: bytes, seed: bytes
) -> tuple[bytes, bytes]:
    """Return (credential, encrypted secret) that only the TPM with this EK *and* this AK can open.

    What TPM2_MakeCredential does (Part 3, 12.6), without a TPM.

    Args:
        ek: RSA or ECC endorsement key.
        ak_name: Name of the AK.
        secret: at most as long as the EK's name hash.
        seed: fresh random bytes, as many as the EK's name hash has; used with an RSA EK.
    """
    size = tpm2.DIGEST_SIZES[ek.name_hash]
    if len(seed) != size or len(secret) > size:
        raise ValueError("seed or secret does not fit the EK's name hash")
    public = public_keys.load(ek)
    if isinstance(public, rsa.RSAPublicKey):
        algorithm = _OAEP_HASHES[ek.name_hash]
        oaep = padding.OAEP(mgf=padding.MGF1(algorithm), algorithm=algorithm, label=b"IDENTITY\0")
        encrypted = public.encrypt(seed, oaep)
    else:
        seed, encrypted = _share_seed(ek, public)
    return _protect(ek, ak_name, secret, seed), encrypted


def _protect(ek: tpm2.Public, ak_name: bytes, secret: bytes, seed: bytes) -> bytes:
    """Return TPM2B(outer HMAC) || encrypted TPM2B(secret) (Part 1, 24.4, 24.5)."""
    key = _kdfa(ek.name_hash, seed, b"STORAGE\0", ak_name, ek.symmetric_bits)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(_tpm2b(secret)) + encryptor.finalize()
    hash_bits = tpm2.DIGEST_SIZES[ek.name_hash] * 8
    hmac_key = _kdfa(ek.name_hash, seed, b"INTEGRITY\0", b"", hash_bits)
    outer = hmac.new(hmac_key, identity + ak_name, ek.name_hash).digest()
    return _tpm2b(outer) + identity


def _share_seed(ek: tpm2.Public, public: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    """Return (seed, TPMS_ECC_POINT of the ephemeral key) (Part 1, C.6.4)."""
    ephemeral = ec.generate_private_key(public.curve)
    size = (public.curve.key_size + 7) // 8
    shared = ephemeral.exchange(ec.ECDH(), public)
    point = ephemeral.public_key().public_numbers()
    x = point.x.to_bytes(size, "big")
    y = point.y.to_bytes(size, "big")
    ek_x = public.public_numbers().x.to_bytes(size, "big")
    seed = _kdfe(ek.name_hash, shared, b"IDENTITY\0", x + ek_x)
    return seed, _tpm2b(x) + _tpm2b(y)


def _kdfa(hash_name: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Return `bits` bits derived by HMAC in counter mode (Part 1, 11.4.10.2)."""
    size = bits // 8
    derived = b""
    counter = 1
    while len(derived) < size:
        block = struct.pack(">I", counter) + label + context + struct.pack(">I", bits)
        derived += hmac.new(key, block, hash_name).digest()
        counter += 1
    return derived[:size]


def _kdfe(hash_name: str, shared: bytes, label: bytes, parties: bytes) -> bytes:
    """Return one digest's worth of key from an ECDH secret (Part 1, 11.4.10.3)."""
    counter = struct.pack(">I", 1)
    return hashlib.new(hash_name, counter + shared + label + parties).digest()


def _tpm2b(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def load_authorities(content: bytes) -> list[crypto.X509]:
    """Return the certificates in a PEM text, in order, or the one in DER.

    Raises:
        InvalidMessage: there is none, or one cannot be read.
    """
    if content.startswith(_DER_BEGIN) and len(content) <= MAX_PEM_BLOCK_SIZE:
        return [_load_authority(crypto.FILETYPE_ASN1, content)]
    if _TRUSTED_BEGIN in content:
        reason = "it has OpenSSL's form with trust settings: `openssl x509 -in FILE -out FILE.pem`"
        raise errors.InvalidMessage("EK authority", reason)
    blocks = [_PEM_BEGIN + block for block in content.split(_PEM_BEGIN)[1:]]
    if not blocks:
        raise errors.InvalidMessage("EK authority", "no PEM certificate")
    if len(blocks) > MAX_AUTHORITIES:
        reason = f"more than {MAX_AUTHORITIES} PEM certificates: put them into several files"
        raise errors.InvalidMessage("EK authority", reason)
    if any(len(block) > MAX_PEM_BLOCK_SIZE for block in blocks):
        # OpenSSL would take a tenth of a second for each MiB.
        reason = f"a PEM certificate longer than {MAX_PEM_BLOCK_SIZE} bytes"
        raise errors.InvalidMessage("EK authority", reason)
    return [_load_authority(crypto.FILETYPE_PEM, block) for block in blocks]


def _load_authority(form: int, encoded: bytes) -> crypto.X509:
    try:
        return crypto.load_certificate(form, encoded)
    except crypto.Error as e:
        raise errors.InvalidMessage("EK authority", "a certificate that cannot be read") from e
