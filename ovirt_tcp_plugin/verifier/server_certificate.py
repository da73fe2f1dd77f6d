# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The server's own TLS certificate: made by its authority, or the administrator's."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.messages import public_keys
from ovirt_tcp_plugin.verifier import authority
from ovirt_tcp_plugin.verifier.settings import ServerOptions


def make(
    server: ServerOptions,
    ca: authority.Authority,
    names: Sequence[str],
    now: datetime.datetime,
) -> None:
    """Make a certificate for these DNS names and addresses.

    The key stays if there is one, so that a crash cannot leave a certificate without its key.
    """
    kept = _kept_key(server)
    certificate, key = ca.issue_server(names, now, kept)
    if kept is None:
        authority.write_key(server.key, key)
    durable.replace(server.certificate, certificate, 0o644)


def _kept_key(server: ServerOptions) -> Optional[ec.EllipticCurvePrivateKey]:
    try:
        key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def load(server: ServerOptions) -> x509.Certificate:
    """Return the certificate. Raises InvalidConfig when it cannot be read."""
    try:
        return x509.load_pem_x509_certificate(server.certificate.read_bytes())
    except (OSError, ValueError) as e:
        fault = f"the server's certificate cannot be read: {e}"
        raise errors.InvalidConfig(str(server.certificate), [fault]) from e


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names and addresses of a certificate."""
    try:
        kind = x509.SubjectAlternativeName
        alternatives = certificate.extensions.get_extension_for_class(kind).value
    except public_keys.UNREADABLE:
        return []
    addresses = [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    return [*alternatives.get_values_for_type(x509.DNSName), *addresses]


def check_names(server: ServerOptions, names: Sequence[str]) -> None:
    """Return if the certificate is for all of these names.

    Raises:
        Conflict: it is not; the text has the command that makes another.
    """
    present = names_of(load(server))
    if set(names) <= set(present):
        return
    options = " ".join(f"--name {name}" for name in names)
    reason = (
        f"{server.certificate} is for {', '.join(present) or 'no name'}; "
        f"`ovirt-tcp-verifier authority certify {options}` makes another"
    )
    raise errors.Conflict(reason)


def is_of(server: ServerOptions, ca: authority.Authority) -> bool:
    """Return whether the certificate was made by the authority or one before it."""
    try:
        extensions = load(server).extensions
        issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except public_keys.UNREADABLE:
        return False
    for root in ca.roots:
        key = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
        if key.digest == issuer.key_identifier:
            return True
    return False


def fingerprint(server: ServerOptions) -> str:
    """Return the SHA-256 fingerprint of the certificate, hex with colons."""
    return load(server).fingerprint(hashes.SHA256()).hex(":")
