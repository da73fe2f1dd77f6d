# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The verifier's own small certificate authority.

It issues the server's certificate and the agents' client certificates.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.public_keys import UNREADABLE, VerifyingKey

AUTHORITY_LIFETIME = datetime.timedelta(days=3650)
SERVER_LIFETIME = datetime.timedelta(days=825)
AGENT_LIFETIME = datetime.timedelta(days=1825)
AK_LIFETIME = datetime.timedelta(days=1825)
# As OpenSSL calls P-256 and P-384.
_AGENT_CURVES = ("secp256r1", "secp384r1")
AK_CERTIFICATE_USAGE = x509.ObjectIdentifier("2.23.133.8.3")  # tcg-kp-AIKCertificate


# Clocks of hosts that just booted may be late.
BACKDATED = datetime.timedelta(hours=24)


class Authority:
    """A certificate and its key, in `ca.pem` and `ca.key` of a directory."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(cls, directory: Path, now: datetime.datetime) -> Authority:
        """Make an authority in `directory`, which exists. An existing one is kept."""
        if (directory / "ca.pem").exists():
            return cls.load(directory)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, now)
        write_key(directory / "ca.key", key)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        write_private(directory / "ca.pem", pem, 0o644)
        return cls(certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Return the authority in `directory`.

        Raises:
            InvalidConfig: it is missing or unreadable.
        """
        try:
            certificate_pem = (directory / "ca.pem").read_bytes()
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key_pem = (directory / "ca.key").read_bytes()
            key = serialization.load_pem_private_key(key_pem, None)
        except (OSError, ValueError) as e:
            fault = f"the authority cannot be read ({e}); `ovirt-tcp-verifier init` makes one"
            raise errors.InvalidConfig(str(directory), [fault]) from e
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise errors.InvalidConfig(str(directory), ["ca.key is not an elliptic-curve key"])
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        """The authority's certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def derive(self, purpose: bytes) -> bytes:
        """Return a secret that whoever holds this authority's key can derive (RFC 5869).

        32 bytes as hex.
        """
        private = self._key.private_numbers().private_value.to_bytes(32, "big")
        derivation = HKDF(hashes.SHA256(), 32, None, purpose)
        return derivation.derive(private).hex().encode("ascii")

    def issue_server(
        self, names: Sequence[str], now: datetime.datetime
    ) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
        """Return (certificate PEM, key) of a server that these DNS names and addresses reach."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        builder = self._leaf(_name(names[0]), key.public_key(), now, SERVER_LIFETIME, usage)
        builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), key

    def issue_agent(
        self, host_name: str, request: bytes, now: datetime.datetime
    ) -> x509.Certificate:
        """Return a client certificate for the key in a PKCS #10 request (DER).

        Nothing else is taken from it.

        Raises:
            InvalidMessage: the request cannot be read, its signature is wrong, or its key is not
                P-256 or P-384.
        """
        key = _requested_key(request)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._leaf(_name(host_name), key, now, AGENT_LIFETIME, usage)
        return builder.sign(self._key, hashes.SHA256())

    def issue_ak(
        self, host_name: str, ak: VerifyingKey, ek_digest: str, now: datetime.datetime
    ) -> x509.Certificate:
        """Return an AK certificate.

        Whoever believes this authority can check the host's quotes with it.

        Source: TCG "AK Certificate Profile" (EKU tcg-kp-AIKCertificate). The subject's serial
        number is the SHA-256 of the EK, hex, so that the chip is named, too.
        """
        chip = x509.NameAttribute(NameOID.SERIAL_NUMBER, ek_digest)
        subject = x509.Name([*_name(host_name), chip])
        builder = self._leaf(subject, ak, now, AK_LIFETIME, AK_CERTIFICATE_USAGE)
        return builder.sign(self._key, hashes.SHA256())

    def _leaf(
        self,
        subject: x509.Name,
        key: VerifyingKey,
        now: datetime.datetime,
        lifetime: datetime.timedelta,
        usage: x509.ObjectIdentifier,
    ) -> x509.CertificateBuilder:
        builder = _builder(subject, self.certificate.subject, key, now, lifetime)
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        # Strict path checks (Python 3.13's default) demand it: RFC 5280, 4.2.1.1.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(constraints, critical=True)
        builder = builder.add_extension(_key_usage(certificates=False), critical=True)
        builder = builder.add_extension(issuer, critical=False)
        return builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    """Return the certificate of an authority that may issue leaves only."""
    name = _name("ovirt-tcp verifier authority")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _builder(name, name, key.public_key(), now, AUTHORITY_LIFETIME)
    builder = builder.add_extension(constraints, critical=True)
    builder = builder.add_extension(_key_usage(certificates=True), critical=True)
    builder = builder.add_extension(identifier, critical=False)
    return builder.sign(key, hashes.SHA256())


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a PKCS #10 request (DER). Raises InvalidMessage as `issue_agent` does."""
    try:
        parsed = x509.load_der_x509_csr(request)
        genuine = parsed.is_signature_valid
        key = parsed.public_key()
    except UNREADABLE as e:
        raise errors.InvalidMessage("certificate request", "not PKCS #10") from e
    if not genuine:
        raise errors.InvalidMessage("certificate request", "its signature is wrong")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _AGENT_CURVES:
        return key
    raise errors.InvalidMessage("certificate request", "its key is not on P-256 or P-384")


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key as PEM, readable by its owner only."""
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, content, 0o600)


def write_private(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, with that mode from its first moment."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _name(common_name: str) -> x509.Name:
    # A common name holds 64 characters (RFC 5280, A.1); the store knows certificates by their
    # digest, not by it.
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])
    return x509.Name([attribute])


def _alternative(name: str) -> Union[x509.DNSName, x509.IPAddress]:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: VerifyingKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _key_usage(certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
