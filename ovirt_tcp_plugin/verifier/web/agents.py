# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What agents call: enrolment, the long poll for a challenge, evidence.

They connect; nobody connects to them.
"""

from __future__ import annotations

from typing import cast

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import enrolment, evidence, json_fields, result
from ovirt_tcp_plugin.verifier.store.hosts import HostSnapshot
from ovirt_tcp_plugin.verifier.web.access import CallerKind
from ovirt_tcp_plugin.verifier.web.handler import Handler


class BeginEnrolment(Handler):
    """EnrolmentRequest -> CredentialChallenge. The caller shows a token inside the message."""

    callers = frozenset({CallerKind.ANYONE})

    async def post(self) -> None:
        request = enrolment.decode_request(self.content)
        challenge = await self.context.enrolment.begin(request)
        self.answer(enrolment.encode(challenge))


class FinishEnrolment(Handler):
    """EnrolmentProof -> EnrolmentReply. The caller shows that it read the secret."""

    callers = frozenset({CallerKind.ANYONE})

    async def post(self) -> None:
        proof = enrolment.decode_proof(self.content)
        reply = await self.context.enrolment.finish(proof)
        self.answer(enrolment.encode(reply))


class RenewCertificate(Handler):
    """PKCS #10 request of an agent -> its new client certificate."""

    callers = frozenset({CallerKind.AGENT})

    async def post(self) -> None:
        members = self.body("renewal")
        size = enrolment.MAX_CERTIFICATE_SIZE
        request = json_fields.blob(members, "certificate_request", size)
        host = cast(HostSnapshot, self.state).host
        certificate = await self.context.enrolment.renew(host, request)
        self.answer({"certificate": certificate})


class Authorities(Handler):
    """The authorities of the servers' certificates, for an agent to believe, the newest first."""

    callers = frozenset({CallerKind.AGENT})

    async def post(self) -> None:
        self.answer({"authorities": self.context.authority.pem.decode("ascii")})


class NextChallenge(Handler):
    """Long poll of an agent: a Challenge, or 204 when nobody wants its evidence."""

    callers = frozenset({CallerKind.AGENT})
    _gone = False

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone = True
        if self.state is not None:
            self.context.attestation.disconnect(self.state.host.name, self._account)

    async def post(self) -> None:
        if self._gone:
            return  # before it was a poll; one that nobody waits for would swallow a challenge
        members = self.body("challenge request")
        boot_id = json_fields.text(members, "boot_id", 36)
        wait_ms = json_fields.integer(members, "wait_ms", 0, 3600_000)
        attestation = self.context.attestation
        state = cast(HostSnapshot, self.state)
        offers = members.get("offer") is True
        challenge = await attestation.next_challenge(state, boot_id, wait_ms, self._account, offers)
        if self._gone:
            return
        if challenge is None:
            self.set_status(204)
            self.finish()
        else:
            self.answer(evidence.encode_challenge(challenge))


class SubmitEvidence(Handler):
    """Evidence -> the host's own result, and the signed verdict for its gate."""

    callers = frozenset({CallerKind.AGENT})
    max_body_size = evidence.MAX_EVIDENCE_SIZE
    _asked = False

    async def prepare(self) -> None:
        await super().prepare()
        self._asked = self.state is not None and self.context.attestation.expects(self.state)

    def data_received(self, chunk: bytes) -> None:
        # An agent that sends megabytes unasked would fill the memory, and hold up all others when
        # they are decoded.
        if self._asked:
            super().data_received(chunk)

    async def post(self) -> None:
        async with self.alone() as another_was_judged:
            if another_was_judged:
                # It may have used the nonce; whoever sends a hundred at once has one read.
                await self._admitted(self._digest)
            await self._judge()

    async def _judge(self) -> None:
        attestation = self.context.attestation
        state = cast(HostSnapshot, self.state)
        if not self._asked or not attestation.expects(state):
            reason = "no evidence was asked for, or its nonce was used before"
            raise errors.Refused("nonce_unknown", reason)
        async with self.context.turns.urgent(self._peer):
            try:
                reported = evidence.decode(self.content, attestation.logs_for(state.host))
            except errors.InvalidMessage:
                await attestation.invalidate_nonce(state.host.name, self._account)
                raise
            outcome = await attestation.submit(state, reported, self._account)
        signed = self.context.signer.sign(state.host, reported, outcome)
        self.answer({**result.encode(outcome), "verdict": signed})
