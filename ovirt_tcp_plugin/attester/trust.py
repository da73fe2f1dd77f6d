# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whom the agent believes to be its attestation server.

First the administrator's `ca_file`; then also the authorities that a server which was believed
handed on, so that a new authority needs nobody on the hosts. Another `ca_file` ends what was handed
on before: the administrator's word is the last.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.messages import public_keys

log = logging.getLogger("attester.trust")

MAX_BUNDLE_SIZE = 64 * 1024
# The authority in use, the one before it, and certificates of each by the other.
MAX_AUTHORITIES = 16
MAX_CA_FILE_SIZE = 1024 * 1024

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]+-----END CERTIFICATE-----")


class TrustedAuthorities:
    """The authorities of the attestation servers' certificates.

    Args:
        ca_file: the administrator's, PEM.
    """

    def __init__(self, state: AgentState, ca_file: Path) -> None:
        self._state = state
        self._ca_file = ca_file

    @property
    def file(self) -> Path:
        """The file of those that count now, PEM."""
        kept = self._state.load_authorities()
        if kept.startswith(self._first_line(self._read_ca_file())):
            return self._state.authorities_file
        return self._ca_file

    def take_over(self, bundle: str) -> bool:
        """Believe the authorities that the server handed on, too, and return whether that is new.

        Raises:
            InvalidMessage: they are not certificates of authorities.
            Unavailable: they cannot be kept.
        """
        _check(bundle)
        given = self._read_ca_file()
        content = b"\n".join([self._first_line(given) + given.rstrip(), bundle.encode("ascii")])
        if self._state.load_authorities() == content:
            return False
        self._state.keep_authorities(content)
        log.info("authorities kept file=%s", self._state.authorities_file)
        return True

    def _read_ca_file(self) -> bytes:
        try:
            with self._ca_file.open("rb") as file:
                return file.read(MAX_CA_FILE_SIZE)
        except OSError:
            return b""  # the connection, which needs it, says so

    def _first_line(self, ca_file: bytes) -> bytes:
        digest = hashlib.sha256(ca_file).hexdigest()
        return f"# beside the ca_file of SHA-256 {digest}\n".encode("ascii")


def newest(bundle: str) -> x509.Certificate:
    """Return the authority that issues now: the first of a bundle. Raises InvalidMessage."""
    return _check(bundle)[0]


def _check(bundle: str) -> list[x509.Certificate]:
    """Return the authorities of a bundle. Raises InvalidMessage."""
    texts = _CERTIFICATE.findall(bundle)
    if not 0 < len(texts) <= MAX_AUTHORITIES:
        raise errors.InvalidMessage("authorities", f"not 1 to {MAX_AUTHORITIES} certificates")
    return [_authority(text) for text in texts]


def _authority(text: str) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(text.encode("ascii"))
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.public_bytes(serialization.Encoding.PEM)
    except public_keys.UNREADABLE as e:
        raise errors.InvalidMessage("authorities", "not PEM certificates of authorities") from e
    if not constraints.ca:
        raise errors.InvalidMessage("authorities", "one of them is not an authority")
    return certificate
