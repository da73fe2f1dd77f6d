# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A TPM vendor that certifies endorsement keys, well or badly."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Sequence
from typing import Optional, Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from ovirt_tcp_plugin.messages import vendor_certificate

EK_CERTIFICATE_USAGE = x509.ObjectIdentifier(vendor_certificate.EK_USAGE)
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc)
YEAR = datetime.timedelta(days=365)
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


Key = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
PublicKey = Union[ec.EllipticCurvePublicKey, rsa.RSAPublicKey]

_RSA_ENCRYPTION, _RSAES_OAEP = (
    bytes.fromhex("2a864886f70d010101"),
    bytes.fromhex("2a864886f70d010107"),
)
_SHA256_WITH_RSA, _SHA1_WITH_RSA = (
    bytes.fromhex("2a864886f70d01010b"),
    bytes.fromhex("2a864886f70d010105"),
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Vendor:
    """A root authority, or one under `issuer`."""

    def __init__(
        self,
        name: str = "vendor root",
        key: Optional[Key] = None,
        ca: bool = True,
        issuer: Optional[Vendor] = None,
        signature_hash: Optional[hashes.HashAlgorithm] = None,
        path_length: int = 1,
    ) -> None:
        self.signature_hash = signature_hash or hashes.SHA256()
        self.name, self.key = _name(name), key or ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=ca, path_length=path_length if ca else None)
        signer = issuer or self
        builder = signer._builder(self.name, self.key.public_key(), NOW - YEAR, NOW + 10 * YEAR)
        self.certificate = builder.add_extension(constraints, True).sign(
            signer.key, self.signature_hash
        )

    @property
    def authorities(self) -> list[crypto.X509]:
        return [crypto.X509.from_cryptography(self.certificate)]

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def certify(
        self,
        key: PublicKey,
        usage: x509.ObjectIdentifier = EK_CERTIFICATE_USAGE,
        end: datetime.datetime = NOW + YEAR,
        issuer_url: str = "",
    ) -> bytes:
        """Return the DER of an EK certificate: empty subject, the EK usage, key agreement."""
        builder = self._builder(x509.Name([]), key, NOW - YEAR, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        if issuer_url:
            location = x509.UniformResourceIdentifier(issuer_url)
            access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, location)
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def revoke(
        self, certificates: Sequence[bytes], next_update: datetime.datetime = NOW + YEAR
    ) -> bytes:
        """Return the DER of a list that revokes these certificates."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(min(NOW, next_update) - YEAR)
            .next_update(next_update)
        )
        for certificate in certificates:
            serial = x509.load_der_x509_certificate(certificate).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW)
            builder = builder.add_revoked_certificate(entry.build())
        signed = builder.sign(self.key, self.signature_hash)
        return signed.public_bytes(serialization.Encoding.DER)

    def _builder(
        self,
        subject: x509.Name,
        key: PublicKey,
        start: datetime.datetime,
        end: datetime.datetime,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )


class Vendor12(Vendor):
    """A vendor of TPM 1.2: RSA and SHA-1, and keys that are marked rsaesOaep."""

    def __init__(
        self, name: str = "vendor root", ca: bool = True, issuer: Optional[Vendor] = None
    ) -> None:
        super().__init__(name, rsa.generate_private_key(65537, 2048), ca, issuer)

    def certify(
        self,
        key: PublicKey,
        usage: x509.ObjectIdentifier = EK_CERTIFICATE_USAGE,
        end: datetime.datetime = NOW + YEAR,
    ) -> bytes:
        """Return the DER of an EK certificate as no library makes it any more."""
        modern = x509.load_der_x509_certificate(super().certify(key, usage, end))
        signed = modern.tbs_certificate_bytes.replace(_RSA_ENCRYPTION, _RSAES_OAEP)
        return self.sign(signed.replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA))

    def sign(self, signed: bytes) -> bytes:
        """Return the certificate of a TBSCertificate."""
        assert isinstance(self.key, rsa.RSAPrivateKey)
        signature = self.key.sign(signed, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        algorithm = element(0x30, element(0x06, _SHA1_WITH_RSA) + element(0x05, b""))
        return element(0x30, signed + algorithm + element(0x03, b"\0" + signature))


def element(tag: int, content: bytes) -> bytes:
    """Return a DER element."""
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x82" + struct.pack(">H", size)
    return bytes([tag]) + length + content
