# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A host's agent with a TPM of the test's own, which speaks to a real server."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin.messages import enrolment, evidence
from ovirt_tcp_plugin.verifier.authority import write_key
from tests.verifier.enrolled import certificate_request
from tests.verifier.live_server import Server
from tests.verifier.software_tpm import SoftwareTpm, launch_events
from tests.verifier.vendor import NOW, Vendor


def _patiently(ask: Callable[[], requests.Response]) -> requests.Response:
    """Return an answer; all hosts of a test are at one address, which may have to wait."""
    answer = ask()
    while answer.status_code == 429:
        time.sleep(int(answer.headers["Retry-After"]))
        answer = ask()
    return answer


class Agent:
    """A host's agent with a TPM of the test's own."""

    def __init__(
        self, server: Server, vendor: Vendor, name: str = "host-1", tpm: SoftwareTpm | None = None
    ) -> None:
        self.server = server
        self.name = name
        self.tpm = tpm or SoftwareTpm()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.ek_certificate = vendor.certify(
            self.tpm.ek_key.public_key(), end=NOW.replace(year=2090)
        )
        self.certificate: tuple[str, str] | None = None
        # Whether it only names logs that the server has, as today's agents do.
        self.names_logs = False

    def without_certificate(self) -> Agent:
        self.ek_certificate = b""
        return self

    def begin(self, token: str, **changes: Any) -> requests.Response:
        request = enrolment.EnrolmentRequest(
            token, self.name, self.ek_certificate, self.tpm.ek.area, self.tpm.ak.area
        )
        return self.server.call("POST", "/v1/enrolment", {**enrolment.encode(request), **changes})

    def finish(
        self, answer: Any, secret: bytes | None = None, asked: bytes | None = None
    ) -> requests.Response:
        challenge = enrolment.decode_challenge(answer)
        opened = secret or self.tpm.activate(challenge.credential, challenge.encrypted_secret)
        request = certificate_request(self.key, self.name)
        quote = self.tpm.quote(enrolment.qualifying_data(opened, request), {})
        proof = enrolment.EnrolmentProof(challenge.enrolment, asked or request, *quote)
        return self.server.call("POST", "/v1/enrolment/proof", enrolment.encode(proof))

    def enrol(self) -> Agent:
        token = self.server.token("enrolment", self.name)
        begun = _patiently(lambda: self.begin(token))
        assert begun.status_code == 200, begun.text
        finished = _patiently(lambda: self.finish(begun.json()))
        assert finished.status_code == 200, finished.text
        self.keep_certificate(finished.json()["certificate"], self.key)
        return self

    def keep_certificate(self, certificate: str, private: ec.EllipticCurvePrivateKey) -> None:
        directory = Path(tempfile.mkdtemp(dir=self.server.directory))
        pem = directory / "agent.pem"
        key = directory / "agent.key"
        pem.write_text(certificate)
        write_key(key, private)
        self.certificate = (str(pem), str(key))

    def challenge(self, wait_ms: int = 5000) -> evidence.Challenge | None:
        message = {"boot_id": self.tpm.boot_id, "wait_ms": wait_ms}
        answer = self.server.call("POST", "/v1/challenge", message, cert=self.certificate)
        assert answer.status_code in (200, 204), answer.text
        return evidence.decode_challenge(answer.json()) if answer.status_code == 200 else None

    def answer(self, challenge: evidence.Challenge | None) -> requests.Response:
        assert challenge is not None
        return self.send(self.evidence(challenge))

    def evidence(self, challenge: evidence.Challenge) -> dict[str, Any]:
        quoting = evidence.qualifying_data(challenge.nonce, self.tpm.boot_id, self.tpm.boottime_ms)
        attest, signature = self.tpm.quote(quoting, challenge.selection)
        values = {index: self.tpm.pcrs[index] for index in challenge.selection["sha256"]}
        logs = {} if self.tpm.log is None else {"txt": self.tpm.log}
        reported = evidence.Evidence(
            challenge.nonce,
            attest,
            signature,
            {"sha256": values},
            logs,
            self.tpm.boot_id,
            self.tpm.boottime_ms,
            "test",
        )
        known = challenge.known_logs if self.names_logs else {}
        return evidence.encode(evidence.name_known_logs(reported, known))

    def send(self, message: dict[str, Any]) -> requests.Response:
        return self.server.call("POST", "/v1/evidence", message, cert=self.certificate)

    def report(self) -> dict[str, Any]:
        """Answer the next challenge; return the result."""
        result: dict[str, Any] = self.answer(self.challenge()).json()
        return result

    def boot_evil(self) -> None:
        """Boot another kernel than the good one."""
        self.tpm.boot(launch_events(kernel=b"evil"))
