# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Enrolment: a host's chip is bound to its name, once, on the word of a single-use token.

Begin: the token is for this name, a vendor vouches for the EK, the AK can quote only the truth, and
neither name nor EK is bound otherwise. Finish: only a TPM that holds both keys could read the
secret, and its quote binds the secret to the certificate request. Then, in one transaction, the
token is spent and the binding kept.

The chip that is bound already, with the same EK, AK and name, needs no token: the same proof gives
it another client certificate and changes nothing else. So a lost answer, a certificate that ended
and a lost state file heal without a person. It is no new trust: whoever can give the proof holds
the keys by which the host is attested.
"""

from __future__ import annotations

import dataclasses
import hmac
import logging
import re
import secrets
from typing import Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import enrolment, public_keys
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.revocation import VendorTrust
from ovirt_tcp_plugin.verifier.store import endorsements, hosts, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import EnrolledHost
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.tpm_family import FAMILIES, Candidate

log = logging.getLogger("verifier.enrolment")

# A slow TPM takes 40 s for a key. The agent makes its keys before it begins, but one of an earlier
# release makes the EK twice more in between, and a TPM may be busy with somebody else's.
PROOF_WITHIN_MS = 180_000
MAX_PENDING = 1000
# Without a token: whoever knows a host's public keys can begin in its name.
MAX_PENDING_OF_HOST = 4

TPM12_OFF = (
    "this server believes no TPM 1.2, since all that it signs rests on SHA-1 (appraisal.tpm12)"
)

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._:-]{0,253}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class _Admission:
    """What a request may lead to.

    Attributes:
        token: None if the chip is bound already, and shows no token that counts.
        endorsed_by: why its EK is believed; empty without a token, when nothing of that changes.
    """

    request: enrolment.EnrolmentRequest
    token: Optional[Token]
    candidate: Candidate
    endorsed_by: str

    @property
    def secret(self) -> str:
        """The token to spend, empty for none."""
        return "" if self.token is None else self.request.token


@dataclasses.dataclass(frozen=True)
class _Pending:
    """An enrolment of which the secret is out, and the proof is to come until `end_ms`."""

    admission: _Admission
    secret: bytes
    end_ms: int


class EnrolmentService:
    """The two steps, and the enrolments between them.

    What is pending is lost on a restart; the agent starts again.
    """

    def __init__(
        self,
        database: Database,
        authority: Authority,
        vendors: VendorTrust,
        first_use: bool,
        clock: Clock,
        *,
        tpm12: bool,
    ) -> None:
        self._database = database
        self._first_use = first_use
        self._tpm12 = tpm12
        self._authority = authority
        self._vendors = vendors
        self._clock = clock
        self._pending: dict[str, _Pending] = {}

    def use(self, authority: Authority, vendors: VendorTrust) -> None:
        """Issue by another authority, and believe these vendors, from now on."""
        self._authority = authority
        self._vendors = vendors

    async def begin(self, request: enrolment.EnrolmentRequest) -> enrolment.CredentialChallenge:
        """Return a secret that only the TPM with both keys can read.

        Raises:
            Refused: token_unknown, host_name, tpm12_off, ek_*, ak_*, name_in_use or busy.
            InvalidMessage: a key is not of its TPM's form.
        """
        check_host_name(request.host_name)
        admission = await self._admit(request)
        secret = secrets.token_bytes(enrolment.SECRET_SIZE)
        protected = admission.candidate.protect(secret, secrets.token_bytes)
        self._make_room(admission)
        end_ms = self._clock.now_ms() + PROOF_WITHIN_MS
        identifier = secrets.token_hex(16)
        self._pending[identifier] = _Pending(admission, secret, end_ms)
        return enrolment.CredentialChallenge(
            identifier, protected.credential, protected.encrypted_secret
        )

    async def finish(self, proof: enrolment.EnrolmentProof) -> enrolment.EnrolmentReply:
        """Return the agent's client certificate once the proof holds.

        Raises:
            Refused: enrolment_unknown, bad_proof, token_unknown, ek_in_use or name_in_use.
            InvalidMessage: the certificate request is not good.
        """
        pending = self._take_pending(proof.enrolment)
        _check_proof(proof, pending)
        now = self._clock.wall()
        admission = pending.admission
        tpm = admission.candidate.tpm
        certificate = self._authority.issue_agent(tpm.name, proof.certificate_request, now)
        host = _enrolled(admission, certificate)
        bound = await self._database.write(lambda c: hosts.enrol(c, admission.secret, host))
        digest = host.ek_digest
        if bound:
            log.info("enrolled host=%s ek=%s endorsed_by=%s", host.name, digest, host.endorsed_by)
        else:
            log.info("certified again host=%s ek=%s", host.name, digest)
        ak = public_keys.load(tpm.ak)
        ak_certificate = self._authority.issue_ak(host.name, ak, digest, now)
        return enrolment.EnrolmentReply(_pem(certificate), _pem(ak_certificate))

    async def renew(self, host: EnrolledHost, certificate_request: bytes) -> str:
        """Return a new client certificate (PEM) for an agent that proved the old one, which ends.

        Raises:
            InvalidMessage: the certificate request is not good.
            Refused: the host was enrolled again meanwhile.
        """
        now = self._clock.wall()
        certificate = self._authority.issue_agent(host.name, certificate_request, now)
        old = host.certificate_digest
        new = _fingerprint(certificate)
        await self._database.write(lambda c: hosts.renew(c, host.name, old, new))
        log.info("renewed host=%s", host.name)
        return _pem(certificate)

    async def _admit(self, request: enrolment.EnrolmentRequest) -> _Admission:
        """Return what the request may lead to. Raises Refused and InvalidMessage as `begin`."""
        try:
            token = await self._check_token(request)
        except errors.Refused as e:
            candidate = await self._bound_chip(request)
            if candidate is None:
                raise
            self._check_family(request)
            log.info(
                "no token host=%s code=%s: its chip is bound already", request.host_name, e.code
            )
            return _Admission(request, None, candidate, "")
        self._check_family(request)
        candidate = FAMILIES[request.family].candidate(request)
        endorsed_by = await self._endorse(request, candidate)
        candidate.check_ak()
        await self._check_binding(request.host_name, candidate)
        return _Admission(request, token, candidate, endorsed_by)

    async def _bound_chip(self, request: enrolment.EnrolmentRequest) -> Optional[Candidate]:
        """Return the chip of a request if its EK and AK are just those enrolled under its name."""
        try:
            candidate = FAMILIES[request.family].candidate(request)
        except errors.InvalidMessage:
            return None
        is_bound = await self._database.read(lambda c: hosts.is_bound(c, candidate.tpm))
        return candidate if is_bound else None

    def _check_family(self, request: enrolment.EnrolmentRequest) -> None:
        if request.family == settings.TPM12_FAMILY and not self._tpm12:
            raise errors.Refused("tpm12_off", TPM12_OFF)

    async def _check_binding(self, name: str, candidate: Candidate) -> None:
        """Return if neither name nor EK is bound otherwise. Raises Refused."""
        digest = public_keys.digest(candidate.tpm.ek)
        bound = await self._database.read(lambda c: hosts.bound(c, name, digest))
        hosts.check_binding(bound, name, digest)

    def _take_pending(self, identifier: str) -> _Pending:
        """Return an enrolment, of which no other proof will be taken.

        Raises:
            Refused: enrolment_unknown.
        """
        pending = self._pending.pop(identifier, None)
        if pending is None or self._clock.now_ms() >= pending.end_ms:
            reason = "no such enrolment is pending, or it took too long: start again"
            raise errors.Refused("enrolment_unknown", reason)
        return pending

    async def _check_token(self, request: enrolment.EnrolmentRequest) -> Token:
        """Return the token of a request. Raises Refused: token_unknown, token_ended."""
        name = request.host_name
        token = await self._database.read(lambda c: tokens.find(c, request.token))
        if token is None or token.role != "enrolment" or token.host_name != name:
            reason = f"the token is not one for the enrolment of {name}"
            raise errors.Refused("token_unknown", reason)
        if self._clock.wall().timestamp() >= token.end_s:
            reason = f"the token ended: ovirt-tcp-verifier token enrol {name} makes a new one"
            raise errors.Refused("token_ended", reason)
        return token

    async def _endorse(self, request: enrolment.EnrolmentRequest, candidate: Candidate) -> str:
        """Return why this EK is believed: "registered", "vendor" or "first_use".

        Raises:
            Refused: ek_registered_elsewhere, ek_uncertified, or what `check_ek_certificate` finds.
        """
        candidate.check_ek()
        name = request.host_name
        digest = public_keys.digest(candidate.tpm.ek)
        registered = await self._database.read(lambda c: endorsements.host_of(c, digest))
        if registered == name:
            return "registered"
        if registered is not None:
            reason = f"this TPM is registered for another host than {name}"
            raise errors.Refused("ek_registered_elsewhere", reason)
        if request.ek_certificate:
            candidate.check_ek_certificate(self._vendors, self._clock.wall())
            return "vendor"
        if self._first_use:
            log.warning("first_use host=%s ek=%s: nobody vouches for this TPM", name, digest)
            return "first_use"
        command = f"ovirt-tcp-verifier ek add {name} {digest}"
        reason = f"the TPM has no EK certificate; if it is the right one: {command}"
        raise errors.Refused("ek_uncertified", reason)

    def _make_room(self, admission: _Admission) -> None:
        """Forget what took too long, and what the new enrolment takes the place of.

        Raises:
            Refused: busy.
        """
        now_ms = self._clock.now_ms()
        for identifier, pending in list(self._pending.items()):
            if pending.end_ms <= now_ms or _is_repeated(pending.admission, admission):
                del self._pending[identifier]
        if admission.token is None:
            self._forget_oldest(admission.request.host_name)
        if len(self._pending) >= MAX_PENDING:
            raise errors.Refused(
                "busy", "too many enrolments are pending, try again in some minutes"
            )

    def _forget_oldest(self, host_name: str) -> None:
        """Leave room for one more enrolment of a host without a token."""
        identifiers = []
        for identifier, pending in self._pending.items():
            admission = pending.admission
            if admission.token is None and admission.request.host_name == host_name:
                identifiers.append(identifier)
        if len(identifiers) >= MAX_PENDING_OF_HOST:
            del self._pending[identifiers[0]]


def _is_repeated(earlier: _Admission, admission: _Admission) -> bool:
    """Return whether both show the same token."""
    return admission.token is not None and earlier.secret == admission.secret


def is_host_name(name: str) -> bool:
    """Return whether `name` can be a host.

    A DNS name or an address, lower case, at most 255 characters.
    """
    return _HOST_NAME.fullmatch(name) is not None


def check_host_name(name: str) -> None:
    """Return if `name` can be a host: a DNS name or an address, lower case, at most 255 characters.

    Raises:
        Refused: host_name.
    """
    if not is_host_name(name):
        reason = "a host name is a DNS name or address in lower case, up to 255 characters"
        raise errors.Refused("host_name", reason)


def _enrolled(admission: _Admission, certificate: x509.Certificate) -> EnrolledHost:
    """Return the host of an enrolment whose proof holds."""
    tpm = admission.candidate.tpm
    _, end = public_keys.life(certificate)
    return EnrolledHost(
        tpm=tpm,
        host_id="" if admission.token is None else admission.token.host_id,
        ek_digest=public_keys.digest(tpm.ek),
        ek_certificate=admission.candidate.kept_certificates,
        certificate_digest=_fingerprint(certificate),
        endorsed_by=admission.endorsed_by,
        certificate_end_s=int(end.timestamp()),
    )


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _check_proof(proof: enrolment.EnrolmentProof, pending: _Pending) -> None:
    """Return if the TPM read the secret. The quote is of no PCR. Raises Refused (bad_proof)."""
    tpm = pending.admission.candidate.tpm
    quote = tpm.check_quote(proof.attest, proof.signature, {})
    if isinstance(quote, Finding):
        raise errors.Refused("bad_proof", quote.text)
    expected = enrolment.qualifying_data(pending.secret, proof.certificate_request)
    if not hmac.compare_digest(quote.qualifying_data, tpm.signed_part(expected)):
        reason = "the TPM that quoted could not read the secret, or the request is for another key"
        raise errors.Refused("bad_proof", reason)
