# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Enrolment, the attester's half.

A token, the EK's certificate and the AK go out, a client certificate comes back.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ovirt_tcp_plugin import errors, secret_files
from ovirt_tcp_plugin.attester import keys, keys12
from ovirt_tcp_plugin.attester.agent_state import AgentState, IdentityBlob
from ovirt_tcp_plugin.attester.measure import QuotingKey
from ovirt_tcp_plugin.attester.tpm import Tpm, TpmError
from ovirt_tcp_plugin.attester.tpm12 import WELL_KNOWN, Tpm12
from ovirt_tcp_plugin.attester.transport import TpmRefusal
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.messages import enrolment, json_fields, tpm2, tpm12

# As it has always been called in journals.
log = logging.getLogger("attester.enrolling")

MAX_TOKEN_LENGTH = 128
# A certificate's common name has no room for more (RFC 5280, A.1); the verifier issues by the
# token's name anyway.
MAX_COMMON_NAME = 64


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        InvalidConfig: the file cannot be read, is empty or holds something else.
    """
    secret_files.warn_if_open(path)
    try:
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN_LENGTH + 64).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise errors.InvalidConfig(str(path), [f"the token cannot be read: {e}"]) from e
    if not token or len(token) > MAX_TOKEN_LENGTH or token.split() != [token]:
        raise errors.InvalidConfig(str(path), ["the file holds no token, which is one word"])
    return token


def read_owner_secret(path: str) -> bytes:
    """Return the 20 bytes that a file has in hex, the well-known secret if `path` is empty.

    Raises:
        InvalidConfig: the file cannot be read, or holds something else.
    """
    if not path:
        return WELL_KNOWN
    secret_files.warn_if_open(Path(path))
    try:
        with open(path, "rb") as file:
            text = file.read(2 * len(WELL_KNOWN) + 64).decode("ascii")
        secret = bytes.fromhex(text.strip())
    except (OSError, ValueError) as e:
        raise errors.InvalidConfig(path, [f"the owner's secret cannot be read: {e}"]) from e
    if len(secret) != len(WELL_KNOWN):
        raise errors.InvalidConfig(path, ["the owner's secret has 40 hexadecimal digits"])
    return secret


def enrol(
    tpm: Tpm, state: AgentState, client: VerifierClient, host_name: str, token: str, ak_kind: str
) -> tpm2.Public:
    """Bind this TPM to `host_name` at the first server that answers, and keep its certificate.

    Returns:
        The AK.

    Raises:
        Refused: the server refused; the reason is for a person.
        Unavailable: no server, or no TPM, answers.
        InvalidMessage: the server's answer is not of our protocol.
    """
    tpm.flush_leftovers()
    with keys.endorsement_key(tpm) as endorsement:
        blob = _kept_or_new_ak(tpm, state, endorsement, ak_kind)
        request = enrolment.EnrolmentRequest(
            token,
            host_name,
            endorsement.certificate,
            endorsement.area,
            blob.public,
            ek_chain=keys.read_chain(tpm) if endorsement.certificate else b"",
        )
        ak = keys.AttestationKey(tpm, blob, endorsement)
        _enrol_at_any(ak, state, client, request)
    return ak.public


def enrol12(
    tpm: Tpm12, owner: bytes, state: AgentState, client: VerifierClient, host_name: str, token: str
) -> None:
    """Do the same with a TPM 1.2, by the identity key that is kept, or a new one.

    Args:
        owner: the owner's secret, 20 bytes.

    Raises:
        Refused, Unavailable, InvalidMessage: as `enrol` does.
    """
    tpm.flush_leftovers()
    identity = _kept_or_new_identity(tpm, owner, state, host_name)
    area = identity.area
    request = enrolment.EnrolmentRequest(
        token,
        host_name,
        ek_certificate=keys12.read_certificate(tpm, owner),
        ek_public=tpm.read_endorsement_key(owner),
        ak_public=tpm12.parse_key(area).public_area,
        family="1.2",
        binding=identity.binding,
    )
    _enrol_at_any(keys12.IdentityKey(tpm, area, owner), state, client, request)


def _kept_or_new_identity(
    tpm: Tpm12, owner: bytes, state: AgentState, host_name: str
) -> IdentityBlob:
    """Return the identity key that is kept if it still loads, else a new one.

    A new one is kept before it is used: an enrolment whose answer was lost is asked for again by
    the same key.
    """
    kept = state.load_identity(host_name)
    if kept is not None:
        try:
            tpm.flush(tpm.load_key(kept.area))
            return kept
        except TpmRefusal as e:
            log.warning("replacing key=ak reason=%s", e)
    area, binding = tpm.make_identity(owner, enrolment.identity_label(host_name))
    fresh = IdentityBlob(area, binding)
    state.keep_identity(fresh, host_name)
    return fresh


def _enrol_at_any(
    ak: QuotingKey, state: AgentState, client: VerifierClient, request: enrolment.EnrolmentRequest
) -> None:
    try:
        while True:
            try:
                _enrol_at(ak, state, client, request)
                return
            except errors.Unavailable as e:
                if isinstance(e, TpmRefusal) or client.fail_over():
                    raise
                log.warning("failed reason=%s", e)
    finally:
        ak.unload()


def renew(state: AgentState, client: VerifierClient, host_name: str) -> None:
    """Have the client certificate replaced, by proving the old one; the key is new, too.

    Raises:
        Refused: the host was enrolled again or removed meanwhile.
        Unavailable: the server did not answer.
        InvalidMessage: its answer is not of our protocol.
    """
    key = state.next_key()
    request = json_fields.encode_blob(_certificate_request(key, host_name))
    answer = client.post("/v1/certificate", {"certificate_request": request})
    members = json_fields.members(answer, "renewal answer")
    certificate = json_fields.text(members, "certificate", enrolment.MAX_CERTIFICATE_SIZE)
    state.keep_client(key, certificate)
    client.reconnect()
    log.info("renewed server=%s", client.current)


def certify_again(
    ak: QuotingKey, state: AgentState, client: VerifierClient, request: enrolment.EnrolmentRequest
) -> None:
    """Have the first server that answers issue another client certificate for the bound chip.

    Args:
        client: shows no certificate.
        request: without a token, of the EK and AK that are enrolled.

    Raises:
        Refused, Unavailable, InvalidMessage: as `enrol` does.
    """
    _enrol_at_any(ak, state, client, request)


def _kept_or_new_ak(
    tpm: Tpm, state: AgentState, endorsement: keys.Endorsement, kind: str
) -> keys.KeyBlob:
    """Return the AK that is kept if it is of that kind and still loads, else a new one.

    A new one is kept before it is used.
    """
    kept = state.load_ak()
    if kept is not None and kept.endorsement == endorsement.kind and keys.kind_of(kept) == kind:
        try:
            handle = keys.load_ak(tpm, endorsement, kept)
            tpm.flush(handle)
            return kept
        except TpmError as e:
            log.warning("replacing key=ak reason=%s", e)
    fresh = keys.create_ak(tpm, endorsement, kind)
    state.keep_ak(fresh)
    return fresh


def _enrol_at(
    ak: QuotingKey, state: AgentState, client: VerifierClient, request: enrolment.EnrolmentRequest
) -> None:
    """Go through the four messages with the server that is asked now."""
    key = state.next_key()
    log.info("asking server=%s", client.current)
    answer = client.post("/v1/enrolment", enrolment.encode(request))
    challenge = enrolment.decode_challenge(answer)
    secret = ak.activate(challenge.credential, challenge.encrypted_secret)
    certificate_request = _certificate_request(key, request.host_name)
    bound = enrolment.qualifying_data(secret, certificate_request)
    attest, signature = ak.quote(bound, {})
    proof = enrolment.EnrolmentProof(challenge.enrolment, certificate_request, attest, signature)
    answer = client.post("/v1/enrolment/proof", enrolment.encode(proof))
    reply = enrolment.decode_reply(answer)
    state.keep_ak_certificate(reply.ak_certificate)
    state.keep_client(key, reply.certificate)
    log.info("enrolled host=%s server=%s", request.host_name, client.current)


def _certificate_request(key: ec.EllipticCurvePrivateKey, host_name: str) -> bytes:
    """Return a PKCS #10 request (DER)."""
    common_name = x509.NameAttribute(NameOID.COMMON_NAME, host_name[:MAX_COMMON_NAME])
    subject = x509.Name([common_name])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)
