# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A host in the store, what it asks with, and the reference values of its ordinary launch."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ovirt_tcp_plugin.messages import components, reference_values
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.store import hosts, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import EnrolledHost
from ovirt_tcp_plugin.verifier.store.tokens import Token
from tests.verifier.software_tpm import SoftwareTpm


def certificate_request(key: ec.EllipticCurvePrivateKey, name: str = "host-1") -> bytes:
    """Return a PKCS #10 request, DER."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.DER)


def enrol(
    database: Database, name: str, tpm: SoftwareTpm, certificate_digest: str, ek_digest: str = ""
) -> EnrolledHost:
    """Bind a host in the store, without the messages."""
    secret = f"token of {name} {certificate_digest}"
    database.transact(lambda c: tokens.add(c, secret, Token("enrolment", name, "id of " + name)))
    bound = EnrolledTpm20(name, tpm.ek, tpm.ak)
    host = EnrolledHost(
        bound, "id of " + name, ek_digest or f"ek of {name}", b"certificate", certificate_digest
    )
    database.transact(lambda c: hosts.enrol(c, secret, host))
    return host


def good_boot(name: str = "golden") -> ReferenceSet:
    """Return the reference values of SoftwareTpm's ordinary launch."""
    tpm = SoftwareTpm()
    return reference_values.from_boot(
        name, "sha256", components.steps(tpm.events, "sha256", (17, 18))
    )
