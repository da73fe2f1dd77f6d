# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the agent keeps between starts: its AK, its client certificate, its last result.

Each file is whole or absent, whatever kills the agent. An AK without certificate is an enrolment
that was not finished; a certificate without AK cannot be, since the AK is written first and a new
AK removes the old certificate.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.attester.keys import KeyBlob
from ovirt_tcp_plugin.attester.templates import ENDORSEMENT_KINDS
from ovirt_tcp_plugin.messages import enrolment, json_fields, public_keys, tpm2, tpm12

# An AK blob and a chain of certificates are some KiB; a result with all findings some 100 KiB.
MAX_FILE_SIZE = 1024 * 1024

AK_FILE = "ak.json"
IDENTITY_KEY_FILE = "identity.key"
BINDING_FILE = "identity.json"
AK_CERTIFICATE_FILE = "ak.pem"
CLIENT_FILE = "client.pem"
NEXT_KEY_FILE = "next.key"
AUTHORITIES_FILE = "authorities.pem"
STATUS_FILE = "status.json"


class IdentityBlob(NamedTuple):
    """The AK of a TPM 1.2.

    Attributes:
        area: TPM_KEY12.
        binding: the signature by which TPM_MakeIdentity bound it to a host name.
    """

    area: bytes
    binding: bytes


class AgentState:
    """The state directory.

    Args:
        directory: owned by the agent's user, mode 0700.

    Raises:
        InvalidConfig: the directory is missing, cannot be read, or others can.
    """

    def __init__(self, directory: Path) -> None:
        try:
            mode = stat.S_IMODE(directory.stat().st_mode)
            is_directory = directory.is_dir()
        except OSError as e:
            raise errors.InvalidConfig(
                str(directory), [f"the state directory: {e.strerror}"]
            ) from e
        if not is_directory or mode & 0o077:
            raise errors.InvalidConfig(
                str(directory), [f"the state directory has mode {mode:04o}, 0700 is needed"]
            )
        self._directory = directory

    @property
    def client_file(self) -> Path:
        """PEM file with the TLS client key and its certificate."""
        return self._directory / CLIENT_FILE

    def load_ak(self) -> Optional[KeyBlob]:
        """Return the AK, None when there is none yet.

        Raises:
            InvalidConfig: the file is not what `keep_ak` wrote.
        """
        members = self._load(AK_FILE)
        if members is None:
            return None
        try:
            json_fields.integer(members, "version", 1, 1)
            blob = KeyBlob(
                endorsement=json_fields.text(members, "endorsement", 20),
                public=json_fields.blob(members, "public", tpm2.MAX_PUBLIC_SIZE),
                private=json_fields.blob(members, "private", tpm2.MAX_PUBLIC_SIZE),
            )
            tpm2.parse_public(blob.public)
        except errors.InvalidMessage as e:
            raise self._unusable(AK_FILE, str(e)) from e
        if len(members) != 4 or blob.endorsement not in ENDORSEMENT_KINDS:
            raise self._unusable(AK_FILE, "unknown members or an unknown kind of EK")
        return blob

    def keep_ak(self, blob: KeyBlob) -> None:
        """Keep a new AK; the certificate of the one before is removed first."""
        with contextlib.suppress(FileNotFoundError):
            self.client_file.unlink()
        members = {
            "version": 1,
            "endorsement": blob.endorsement,
            "public": json_fields.encode_blob(blob.public),
            "private": json_fields.encode_blob(blob.private),
        }
        self._write(AK_FILE, json.dumps(members).encode("ascii"))

    def load_identity_key(self) -> Optional[bytes]:
        """Return the TPM_KEY12 of a TPM 1.2's identity key, None when there is none yet.

        Raises:
            InvalidConfig: the file is not what `keep_identity_key` wrote.
        """
        area = self._read(IDENTITY_KEY_FILE)
        if area is None:
            return None
        try:
            tpm12.parse_key(area)
        except errors.InvalidMessage as e:
            raise self._unusable(IDENTITY_KEY_FILE, str(e)) from e
        return area

    def load_identity(self, host_name: str) -> Optional[IdentityBlob]:
        """Return the identity key that was made for this name, None when there is none."""
        try:
            area = self.load_identity_key()
            members = self._load(BINDING_FILE)
            if area is None or members is None:
                return None
            if json_fields.text(members, "host_name", 255) != host_name:
                return None
            digest = json_fields.text(members, "key", 64)
            binding = json_fields.blob(members, "binding", enrolment.MAX_BINDING_SIZE)
        except errors.Error:
            return None
        return IdentityBlob(area, binding) if digest == _digest(area) else None

    def keep_identity(self, identity: IdentityBlob, host_name: str) -> None:
        """Keep a new identity key; the certificate of the AK before it is removed first."""
        with contextlib.suppress(FileNotFoundError):
            self.client_file.unlink()
        members = {
            "host_name": host_name,
            "key": _digest(identity.area),
            "binding": json_fields.encode_blob(identity.binding),
        }
        self._write(BINDING_FILE, json.dumps(members).encode("utf-8"))
        self._write(IDENTITY_KEY_FILE, identity.area)

    def keep_client(self, key: ec.EllipticCurvePrivateKey, certificate: str) -> None:
        """Keep the client key with the certificate (PEM) that the verifier issued for it.

        Raises:
            InvalidMessage: the certificate is none, or is for another key.
        """
        try:
            issued = x509.load_pem_x509_certificate(certificate.encode("ascii"))
            certified = _spki(issued)
            begin, end = public_keys.life(issued)
        except public_keys.UNREADABLE as e:
            raise errors.InvalidMessage("client certificate", "not a PEM certificate") from e
        if begin >= end:
            raise errors.InvalidMessage("client certificate", "its life ends before it begins")
        if certified != _spki(key):
            raise errors.InvalidMessage(
                "client certificate", "it is for another key than the one requested"
            )
        private = _encode_key(key)
        self._write(CLIENT_FILE, private + issued.public_bytes(serialization.Encoding.PEM))
        with contextlib.suppress(OSError):
            (self._directory / NEXT_KEY_FILE).unlink()

    def next_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key for the next client certificate, which is kept before anybody is asked.

        So a disk without room is noticed first, and a question that is asked again, because its
        answer was lost, is for the same key.

        Raises:
            Unavailable: it cannot be kept.
        """
        kept = self._load_next_key()
        if kept is not None:
            return kept
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(NEXT_KEY_FILE, _encode_key(key))
        return key

    def _load_next_key(self) -> Optional[ec.EllipticCurvePrivateKey]:
        """Return the key that waits for its certificate, None if there is none that can be used."""
        content = self._read(NEXT_KEY_FILE)
        if content is None:
            return None
        try:
            key = serialization.load_pem_private_key(content, None)
        except (ValueError, TypeError):
            return None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            return None
        certificate = self._client_certificate()
        # It was used, and its removal failed.
        is_used = certificate is not None and _spki(key) == _spki(certificate)
        return None if is_used else key

    def has_key(self) -> bool:
        """Return whether an enrolment got as far as the attestation key, of either family."""
        names = (AK_FILE, IDENTITY_KEY_FILE)
        return any((self._directory / name).exists() for name in names)

    def client_is_good(self, now: datetime.datetime) -> bool:
        """Return whether there is a client certificate with its key that has not ended (UTC)."""
        try:
            self.check_client()
            return self.client_life_left(now) > 0
        except errors.InvalidConfig:
            return False

    def client_is_of(self, authority: x509.Certificate) -> bool:
        """Return whether the client certificate was issued under the key of this authority."""
        certificate = self._client_certificate()
        if certificate is None:
            return False
        try:
            extensions = certificate.extensions
            issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            of_authority = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
        except public_keys.UNREADABLE:
            return False
        return issuer.key_identifier == of_authority.digest

    def _client_certificate(self) -> Optional[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificate(self._read(CLIENT_FILE) or b"")
        except ValueError:
            return None

    @property
    def authorities_file(self) -> Path:
        """PEM file with the authorities that a server handed on."""
        return self._directory / AUTHORITIES_FILE

    def load_authorities(self) -> bytes:
        """Return what was kept of them, empty if nothing was."""
        return self._read(AUTHORITIES_FILE) or b""

    def keep_authorities(self, content: bytes) -> None:
        """Keep the authorities that a server handed on. Raises Unavailable."""
        self._write(AUTHORITIES_FILE, content)

    def keep_ak_certificate(self, certificate: str) -> None:
        """Keep the AK's certificate (PEM), for whoever wants to check this host's quotes."""
        self._write(AK_CERTIFICATE_FILE, certificate.encode("ascii", "replace"))

    def client_life_left(self, now: datetime.datetime) -> float:
        """Return how much of the client certificate's life is left at `now` (UTC).

        From 1.0 down to 0, and below when it ended.

        Raises:
            InvalidConfig: there is no certificate, or it cannot be read.
        """
        try:
            certificate = x509.load_pem_x509_certificate(self._read(CLIENT_FILE) or b"")
        except ValueError as e:
            raise self._unusable(CLIENT_FILE, "it holds no certificate: enrol again") from e
        begin, end = public_keys.life(certificate)
        return (end - now) / (end - begin)

    def check_client(self) -> None:
        """Return if there is a client key with its certificate.

        Raises:
            InvalidConfig: there is none (the host is not enrolled), or the two do not belong
                together.
        """
        content = self._read(CLIENT_FILE)
        if content is None:
            raise self._unusable(
                CLIENT_FILE, "this host is not enrolled: run `ovirt-tcp-agent enrol`"
            )
        try:
            key = serialization.load_pem_private_key(content, None)
            certificate = x509.load_pem_x509_certificate(content)
        except (ValueError, TypeError) as e:
            raise self._unusable(
                CLIENT_FILE, "it holds no key with its certificate: enrol again"
            ) from e
        if _spki(key) != _spki(certificate):
            raise self._unusable(
                CLIENT_FILE, "key and certificate do not belong together: enrol again"
            )

    def keep_status(self, status: Mapping[str, Any]) -> None:
        """Keep what `ovirt-tcp-agent status` shows."""
        self._write(STATUS_FILE, json.dumps(status, indent=2).encode("utf-8"))

    def load_status(self) -> Optional[Mapping[str, object]]:
        """Return what was kept last, None if nothing was. Raises InvalidConfig."""
        return self._load(STATUS_FILE)

    def _load(self, name: str) -> Optional[Mapping[str, object]]:
        content = self._read(name)
        if content is None:
            return None
        try:
            return json_fields.parse_members(content, name, MAX_FILE_SIZE)
        except errors.InvalidMessage as e:
            raise self._unusable(name, str(e)) from e

    def _read(self, name: str) -> Optional[bytes]:
        try:
            with (self._directory / name).open("rb") as file:
                return file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise self._unusable(name, e.strerror or str(e)) from e

    def _write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all, durably, readable by its owner only."""
        path = self._directory / name
        try:
            durable.replace(path, content)
        except OSError as e:
            raise errors.Unavailable(f"state file {path}", e.strerror or str(e)) from e

    def _unusable(self, name: str, fault: str) -> errors.InvalidConfig:
        return errors.InvalidConfig(str(self._directory / name), [fault])


def _digest(area: bytes) -> str:
    return hashlib.sha256(area).hexdigest()


def _encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _spki(holder: Any) -> bytes:
    """Return the public key of a key or certificate.

    EL9's cryptography cannot compare keys themselves.
    """
    return public_keys.encode(holder.public_key())
