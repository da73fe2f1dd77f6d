# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The four messages of enrolment between attester and verifier.

EnrolmentRequest -> CredentialChallenge -> EnrolmentProof -> EnrolmentReply. The secret in the
challenge can be read only by the TPM that holds both the EK and the AK (TPM2_ActivateCredential,
Part 3, 12.5; TPM_ActivateIdentity, Part 3, 15.2 of TPM 1.2); the proof is a quote by that AK whose
qualifying data binds the secret to the certificate request, so that whoever relays the messages
cannot put in a TLS key of his own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields, tpm2, tpm12, vendor_certificate

MAX_CERTIFICATE_SIZE = 8192
# With the certificate and its chain in base64.
MAX_REQUEST_SIZE = 48 * 1024
SECRET_SIZE = 32
MAX_BINDING_SIZE = 256
FAMILIES = ("2.0", "1.2")

_CONTEXT = b"ovirt-tcp enrolment 1\0"


@dataclasses.dataclass(frozen=True)
class EnrolmentRequest:
    """Attester -> verifier: who the host is, and the keys of its TPM.

    Attributes:
        token: the single-use token, text.
        ek_certificate: DER, empty if the TPM has none.
        ek_public: TPMT_PUBLIC; TPM_PUBKEY of a TPM 1.2.
        ak_public: TPMT_PUBLIC; TPM_KEY12 without its private part of a TPM 1.2.
        family: the TPM's, one of FAMILIES.
        binding: by which TPM_MakeIdentity bound the AK of a TPM 1.2 to `identity_label`; empty for
            a TPM 2.0.
        ek_chain: DER of the authorities between the EK's certificate and its maker's root that lie
            in the TPM, one after the other; empty if there are none.
    """

    token: str
    host_name: str
    ek_certificate: bytes
    ek_public: bytes
    ak_public: bytes
    family: str = "2.0"
    binding: bytes = b""
    ek_chain: bytes = b""


@dataclasses.dataclass(frozen=True)
class CredentialChallenge:
    """Verifier -> attester.

    TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, both without their outer length.

    For a TPM 1.2: TPM_SYM_CA_ATTESTATION and the encrypted TPM_ASYM_CA_CONTENTS.
    """

    enrolment: str
    credential: bytes
    encrypted_secret: bytes


@dataclasses.dataclass(frozen=True)
class EnrolmentProof:
    """Attester -> verifier.

    PKCS #10 request (DER) and a quote over no PCR bound to it and to the secret.
    """

    enrolment: str
    certificate_request: bytes
    attest: bytes
    signature: bytes


@dataclasses.dataclass(frozen=True)
class EnrolmentReply:
    """Verifier -> attester.

    The agent's client certificate, and one of its AK for third parties (PEM texts).
    """

    certificate: str
    ak_certificate: str


def qualifying_data(secret: bytes, certificate_request: bytes) -> bytes:
    """Return the 32 bytes that the proof's quote must carry."""
    return hmac.new(secret, _CONTEXT + certificate_request, hashlib.sha256).digest()


def identity_label(host_name: str) -> bytes:
    """Return the 20 bytes to which TPM_MakeIdentity binds the AK of a TPM 1.2 (labelPrivCADigest).

    The Privacy CA's key, which the specification has in it, is left out: ours has no TPM_PUBKEY,
    and TLS names it.
    """
    return tpm12.external_data(
        hashlib.sha256(_CONTEXT + b"identity\0" + host_name.encode("utf-8")).digest()
    )


def encode(message: object) -> dict[str, Any]:
    """Return the JSON object of one of the four messages."""
    encoded = {}
    for field in dataclasses.fields(message):  # type: ignore[arg-type]
        value = getattr(message, field.name)
        is_blob = isinstance(value, bytes)
        encoded[field.name] = json_fields.encode_blob(value) if is_blob else value
    return encoded


def decode_request(untrusted: bytes) -> EnrolmentRequest:
    """Return the request in a message. Raises InvalidMessage."""
    members = json_fields.parse_members(untrusted, "enrolment request", MAX_REQUEST_SIZE)
    return EnrolmentRequest(
        token=json_fields.text(members, "token", 128),
        host_name=json_fields.text(members, "host_name", 255),
        ek_certificate=json_fields.blob(members, "ek_certificate", MAX_CERTIFICATE_SIZE),
        ek_public=json_fields.blob(members, "ek_public", tpm2.MAX_PUBLIC_SIZE),
        ak_public=json_fields.blob(members, "ak_public", tpm2.MAX_PUBLIC_SIZE),
        family=_family(members),
        binding=json_fields.blob(members, "binding", MAX_BINDING_SIZE),
        ek_chain=_chain(members),
    )


def decode_challenge(untrusted: object) -> CredentialChallenge:
    """Return the challenge in a JSON object. Raises InvalidMessage."""
    members = json_fields.members(untrusted, "credential challenge")
    return CredentialChallenge(
        enrolment=json_fields.text(members, "enrolment", 64),
        credential=json_fields.blob(members, "credential", 1024),
        encrypted_secret=json_fields.blob(members, "encrypted_secret", 1024),
    )


def decode_proof(untrusted: bytes) -> EnrolmentProof:
    """Return the proof in a message. Raises InvalidMessage."""
    members = json_fields.parse_members(untrusted, "enrolment proof", MAX_REQUEST_SIZE)
    return EnrolmentProof(
        enrolment=json_fields.text(members, "enrolment", 64),
        certificate_request=json_fields.blob(members, "certificate_request", MAX_CERTIFICATE_SIZE),
        attest=json_fields.blob(members, "attest", tpm2.MAX_ATTEST_SIZE),
        signature=json_fields.blob(members, "signature", tpm2.MAX_SIGNATURE_SIZE),
    )


def decode_reply(untrusted: object) -> EnrolmentReply:
    """Return the reply in a JSON object. Raises InvalidMessage."""
    members = json_fields.members(untrusted, "enrolment reply")
    return EnrolmentReply(
        certificate=json_fields.text(members, "certificate", MAX_CERTIFICATE_SIZE),
        ak_certificate=json_fields.text(members, "ak_certificate", MAX_CERTIFICATE_SIZE),
    )


def _chain(members: Mapping[str, object]) -> bytes:
    if "ek_chain" not in members:
        return b""  # an agent of an earlier release
    return json_fields.blob(members, "ek_chain", vendor_certificate.MAX_CHAIN_SIZE)


def _family(members: Mapping[str, object]) -> str:
    family = json_fields.text(members, "family", 8)
    if family not in FAMILIES:
        raise errors.InvalidMessage("enrolment request", f"unknown TPM family {family!r}")
    return family
