# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A TPM vendor that certifies endorsement keys, well or badly."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from ovirt_tcp_plugin.verifier.endorsement import EK_CERTIFICATE_USAGE

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc)
YEAR = datetime.timedelta(days=365)
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Vendor:
    """A root authority of its own."""

    def __init__(self, name: str = "vendor root") -> None:
        self.name, self.key = _name(name), ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=1)
        builder = self._builder(self.name, self.key.public_key(), NOW - YEAR, NOW + 10 * YEAR)
        self.certificate = builder.add_extension(constraints, True).sign(self.key, hashes.SHA256())

    @property
    def authorities(self) -> list[crypto.X509]:
        return [crypto.X509.from_cryptography(self.certificate)]

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def certify(
        self,
        key: ec.EllipticCurvePublicKey,
        usage: x509.ObjectIdentifier = EK_CERTIFICATE_USAGE,
        end: datetime.datetime = NOW + YEAR,
    ) -> bytes:
        """Return the DER of an EK certificate: empty subject, the EK usage, key agreement."""
        builder = self._builder(x509.Name([]), key, NOW - YEAR, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
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
