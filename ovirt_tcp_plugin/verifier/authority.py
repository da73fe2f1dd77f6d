# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The verifier's own small certificate authority.

It issues the server's certificate and the agents' client certificates.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.messages.public_keys import UNREADABLE, VerifyingKey, encode, life

CERTIFICATE_FILE = "ca.pem"
KEY_FILE = "ca.key"
# Nobody renews an authority more often while an earlier one lives.
MAX_CERTIFICATES = 16

AUTHORITY_LIFETIME = datetime.timedelta(days=3650)
SERVER_LIFETIME = datetime.timedelta(days=825)
AGENT_LIFETIME = datetime.timedelta(days=1825)
AK_LIFETIME = datetime.timedelta(days=1825)
# As OpenSSL calls P-256 and P-384.
_AGENT_CURVES = ("secp256r1", "secp384r1")
AK_CERTIFICATE_USAGE = x509.ObjectIdentifier("2.23.133.8.3")  # tcg-kp-AIKCertificate


_PEM_CERTIFICATE = re.compile(
    b"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----", re.DOTALL
)
_PEM_KEY = re.compile(b"-----BEGIN ([A-Z ]*PRIVATE KEY)-----[^-]+-----END \\1-----", re.DOTALL)
# Clocks of hosts that just booted may be late.
BACKDATED = datetime.timedelta(hours=24)


class Authority:
    """A certificate and its key, and those that it took the place of.

    `ca.pem` of a directory has the certificate in use first, then those before it that have not
    ended, and between them cross certificates: the new key under the name of the authority, signed
    by the one before it (RFC 4210, 4.4, "new with old"). Whoever believes only an earlier one
    follows them to the new one. `ca.key` has the key in use and the one before it. Which
    certificate is in use is decided by `ca.pem` alone, which is written last.

    Attributes:
        certificate: the one that issues.
        others: the rest of `ca.pem`.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        others: Sequence[x509.Certificate] = (),
        former_keys: Sequence[ec.EllipticCurvePrivateKey] = (),
    ) -> None:
        self.certificate = certificate
        self.others = tuple(others)
        self._key = key
        self._former_keys = tuple(former_keys)

    @classmethod
    def create(cls, directory: Path, now: datetime.datetime) -> Authority:
        """Make an authority in `directory`, which exists. An existing one is kept."""
        if (directory / CERTIFICATE_FILE).exists():
            return cls.load(directory)
        key = ec.generate_private_key(ec.SECP256R1())
        fresh = cls(_self_signed(key, now), key)
        fresh.write(directory)
        return fresh

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Return the authority in `directory`.

        Raises:
            InvalidConfig: it is missing or unreadable, or others may read its key.
        """
        check_private(directory / KEY_FILE, 0o077)
        try:
            certificates = _load_certificates((directory / CERTIFICATE_FILE).read_bytes())
        except (OSError, ValueError) as e:
            raise _unusable(directory, CERTIFICATE_FILE, e) from e
        try:
            keys = _load_keys((directory / KEY_FILE).read_bytes())
        except (OSError, ValueError) as e:
            raise _unusable(directory, KEY_FILE, e) from e
        certificate = certificates[0]
        certified = encode(certificate.public_key())
        for number, key in enumerate(keys):
            if encode(key.public_key()) == certified:
                former_keys = [*keys[:number], *keys[number + 1 :]]
                return cls(certificate, key, certificates[1:], former_keys)
        fault = f"{KEY_FILE} has no key of {CERTIFICATE_FILE}: restore the two from one backup"
        raise errors.InvalidConfig(str(directory), [fault])

    def renewed(self, now: datetime.datetime) -> Authority:
        """Return a new authority that everybody who believes this one believes, too."""
        key = ec.generate_private_key(ec.SECP256R1())
        former = [self.certificate, *self.others]
        if now < self.end:
            former.insert(0, self._cross(key, now))
        living = [other for other in former if life(other)[1] > now]
        others = living[: MAX_CERTIFICATES - 1]
        return Authority(_self_signed(key, now), key, others, [self._key])

    def _cross(self, key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
        """Return a certificate by this authority that the new key is an authority, too."""
        end = min(now + AUTHORITY_LIFETIME, self.end)
        builder = _authority_builder(key.public_key(), now, end)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())

    def write(self, directory: Path) -> None:
        """Keep it: the keys first, so that a crash in between leaves the one before in use."""
        keys = b"".join(_key_pem(key) for key in (self._key, *self._former_keys))
        durable.replace(directory / KEY_FILE, keys)
        certificates = b"".join(_pem(each) for each in (self.certificate, *self.others))
        durable.replace(directory / CERTIFICATE_FILE, certificates, 0o644)

    @property
    def end(self) -> datetime.datetime:
        """The end of its certificate (UTC)."""
        return life(self.certificate)[1]

    @property
    def pem(self) -> bytes:
        """All authorities to believe, the newest first, PEM."""
        return b"".join(_pem(root) for root in self.roots)

    @property
    def roots(self) -> list[x509.Certificate]:
        """The certificates of all authorities to believe, the newest first."""
        return [self.certificate, *(other for other in self.others if not _is_cross(other))]

    def digests(self) -> list[str]:
        """Return SHA-256 of each authority's certificate, hex, the newest first."""
        return [root.fingerprint(hashes.SHA256()).hex() for root in self.roots]

    def derive(self, purpose: bytes) -> bytes:
        """Return a secret that whoever holds this authority's key can derive (RFC 5869).

        32 bytes as hex.
        """
        return _derive(self._key, purpose)

    def derive_former(self, purpose: bytes) -> list[bytes]:
        """Return the same secrets of the keys before."""
        return [_derive(key, purpose) for key in self._former_keys]

    def issue_server(
        self,
        names: Sequence[str],
        now: datetime.datetime,
        key: Optional[ec.EllipticCurvePrivateKey] = None,
    ) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
        """Return (certificates PEM, key) of a server that these DNS names and addresses reach.

        The cross certificates, if there are any, follow its own one.

        Args:
            key: of the server; None for a new one.

        Raises:
            Unavailable: the authority has ended.
        """
        server_key = key or ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        builder = self._leaf(_name(names[0]), server_key.public_key(), now, SERVER_LIFETIME, usage)
        builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        crosses = [other for other in self.others if _is_cross(other) and life(other)[1] > now]
        chain = b"".join(_pem(link) for link in (certificate, *crosses))
        return chain, server_key

    def issue_agent(
        self, host_name: str, request: bytes, now: datetime.datetime
    ) -> x509.Certificate:
        """Return a client certificate for the key in a PKCS #10 request (DER).

        Nothing else is taken from it.

        Raises:
            InvalidMessage: the request cannot be read, its signature is wrong, or its key is not
                P-256 or P-384.
            Unavailable: the authority has ended.
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
        if now >= self.end:
            reason = "it has ended: ovirt-tcp-verifier authority replace makes a new one"
            raise errors.Unavailable("the certificate authority", reason)
        # Nothing that it issues is good any longer than itself.
        end = min(now + lifetime, self.end)
        builder = _builder(subject, self.certificate.subject, key, now, end)
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        # Strict path checks (Python 3.13's default) demand it: RFC 5280, 4.2.1.1.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(constraints, critical=True)
        builder = builder.add_extension(_key_usage(certificates=False), critical=True)
        builder = builder.add_extension(issuer, critical=False)
        return builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    """Return the certificate of an authority that may issue leaves only."""
    builder = _authority_builder(key.public_key(), now, now + AUTHORITY_LIFETIME)
    return builder.sign(key, hashes.SHA256())


def _authority_builder(
    key: ec.EllipticCurvePublicKey, now: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    name = _name("ovirt-tcp verifier authority")
    # A cross certificate bears the same name as its issuer, so it does not count for the length of
    # the path (RFC 5280, 4.2.1.9).
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key)
    builder = _builder(name, name, key, now, end)
    builder = builder.add_extension(constraints, critical=True)
    builder = builder.add_extension(_key_usage(certificates=True), critical=True)
    return builder.add_extension(identifier, critical=False)


def _is_cross(certificate: x509.Certificate) -> bool:
    """Return whether an authority's certificate was signed by another authority."""
    try:
        certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return False
    return True


def _load_certificates(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates in a file. Raises ValueError."""
    certificates = []
    for text in _PEM_CERTIFICATE.findall(pem):
        certificates.append(x509.load_pem_x509_certificate(text))
    if not certificates:
        raise ValueError("it has no certificate")
    return certificates


def _load_keys(pem: bytes) -> list[ec.EllipticCurvePrivateKey]:
    """Return the keys in a file. Raises ValueError."""
    keys = []
    for text in _PEM_KEY.finditer(pem):
        key = serialization.load_pem_private_key(text.group(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("it is not an elliptic-curve key")  # noqa: TRY004 - of the file
        keys.append(key)
    if not keys:
        raise ValueError("it has no key")
    return keys


def _unusable(directory: Path, name: str, error: Exception) -> errors.InvalidConfig:
    cause = getattr(error, "strerror", None) or str(error)
    fault = (
        f"{name} cannot be read ({cause}): restore it from the backup; "
        "without one, `ovirt-tcp-verifier authority replace` makes a new authority, and on a new "
        "server `ovirt-tcp-verifier init` does"
    )
    return errors.InvalidConfig(str(directory), [fault])


def _derive(key: ec.EllipticCurvePrivateKey, purpose: bytes) -> bytes:
    private = key.private_numbers().private_value.to_bytes(32, "big")
    derivation = HKDF(hashes.SHA256(), 32, None, purpose)
    return derivation.derive(private).hex().encode("ascii")


def check_private(path: Path, forbidden: int) -> None:
    """Return if nobody else may use a file or directory; one that is absent is no fault here.

    Args:
        forbidden: the bits of its mode that must not be set.

    Raises:
        InvalidConfig: others may; the text has the command that ends it.
    """
    try:
        status = path.stat()
    except OSError:
        return
    if status.st_mode & forbidden:
        mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
        fault = f"others may use it; make it private: chmod {mode} {path}"
        raise errors.InvalidConfig(str(path), [fault])


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
    durable.replace(path, _key_pem(key))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


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
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
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
