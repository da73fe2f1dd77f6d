# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The attester's half of enrolment, with a server that follows the protocol or breaks it."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import enrolment, templates
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.host_tpm import HostTpm20
from ovirt_tcp_plugin.attester.settings import TpmOptions
from ovirt_tcp_plugin.attester.tpm import Tpm, TpmError
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.messages import enrolment as messages
from ovirt_tcp_plugin.messages import public_keys, tpm2
from ovirt_tcp_plugin.verifier import endorsement
from ovirt_tcp_plugin.verifier.authority import Authority
from tests.attester import quotes
from tests.attester.fake_verifier import FakeVerifier, http, issue

SECRET = bytes(range(32))


class Protocol:
    """The verifier's half, done well; a test spoils one part."""

    def __init__(self, server: FakeVerifier, authority: Authority) -> None:
        self.server = server
        self.authority = authority
        self.ak_name: Optional[bytes] = None
        self.certified_key: Optional[ec.EllipticCurvePrivateKey] = None
        server.answers = [self._begin, self._finish]

    @property
    def request(self) -> dict[str, Any]:
        return next(
            body for path, body in reversed(self.server.requests) if path == "/v1/enrolment"
        )

    @property
    def proof(self) -> dict[str, Any]:
        return next(
            body for path, body in reversed(self.server.requests) if path == "/v1/enrolment/proof"
        )

    def _begin(self, connection: Any) -> None:
        ek = tpm2.parse_public(base64.b64decode(self.request["ek_public"]))
        ak = tpm2.parse_public(base64.b64decode(self.request["ak_public"]))
        name = self.ak_name or tpm2.name(ak)
        seed = os.urandom(tpm2.DIGEST_SIZES[ek.name_hash])
        challenge = messages.CredentialChallenge(
            "7", *endorsement.make_credential(ek, name, SECRET, seed)
        )
        connection.sendall(http(200, messages.encode(challenge)))

    def _finish(self, connection: Any) -> None:
        request = base64.b64decode(self.proof["certificate_request"])
        if self.certified_key is not None:
            request = enrolment._certificate_request(self.certified_key, "host-1")
        certificate = issue(self.authority, request)
        connection.sendall(http(200, {"certificate": certificate, "ak_certificate": "of the AK"}))


@pytest.fixture
def protocol(verifier: FakeVerifier, authority: Authority) -> Protocol:
    return Protocol(verifier, authority)


def enrol(
    tpm: Tpm, state: AgentState, *servers: FakeVerifier, kind: str = "ecc-p256"
) -> tpm2.Public:
    client = VerifierClient([server.url for server in servers], servers[0].ca_file, None)
    return enrolment.enrol(tpm, state, client, "host-1", "token-1", kind)


def test_a_slow_chip_makes_each_key_once_and_none_while_the_server_waits(
    protocol: Protocol, tpm: Tpm, state: AgentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    persistent = templates.ENDORSEMENT_KINDS["rsa-2048"].persistent
    number = persistent.to_bytes(4, "big")
    tpm.execute("TPM2_EvictControl", 0x120, [0x40000001, persistent], [0x40000009], number)
    made = []

    def execute(name: str, *arguments: Any, **options: Any) -> Any:
        if name in ("TPM2_CreatePrimary", "TPM2_Create"):
            made.append((name, len(protocol.server.requests)))
        return Tpm.execute(tpm, name, *arguments, **options)

    monkeypatch.setattr(tpm, "execute", execute)

    enrol(tpm, state, protocol.server)

    assert made == [("TPM2_CreatePrimary", 0), ("TPM2_Create", 0)]


@pytest.mark.parametrize("kind", ["ecc-p256", "rsa-2048"])
def test_proves_its_keys_and_keeps_the_certificate(
    kind: str, protocol: Protocol, tpm: Tpm, state: AgentState, tmp_path: Path
) -> None:
    enrol(tpm, state, protocol.server, kind=kind)

    assert protocol.request["token"] == "token-1"
    assert protocol.request["host_name"] == "host-1"
    certificate = base64.b64decode(protocol.request["ek_certificate"])
    ek_area, ak_area = (
        base64.b64decode(protocol.request[key]) for key in ("ek_public", "ak_public")
    )
    certified = x509.load_der_x509_certificate(certificate).public_key()
    assert public_keys.encode(certified) == public_keys.encode(quotes.public_key(ek_area))
    attest, signature, request = (
        base64.b64decode(protocol.proof[key])
        for key in ("attest", "signature", "certificate_request")
    )
    bound = messages.qualifying_data(SECRET, request)
    assert tpm2.parse_quote(attest).qualifying_data == bound
    assert tpm2.parse_quote(attest).selection == {}
    quotes.check_signature(ak_area, attest, signature)
    parsed = x509.load_der_x509_csr(request)
    assert parsed.is_signature_valid
    assert parsed.subject.rfc4514_string() == "CN=host-1"
    state.check_client()
    kept = state.load_ak()
    assert kept is not None and kept.public == ak_area
    assert tpm.handles(0x80000000) == ()


def test_the_enrolled_chip_asks_for_another_certificate_without_a_token(
    protocol: Protocol, tpm: Tpm, state: AgentState
) -> None:
    enrol(tpm, state, protocol.server)
    kept = state.load_ak()
    state.client_file.unlink()
    Protocol(protocol.server, protocol.authority)
    client = VerifierClient([protocol.server.url], protocol.server.ca_file, None)

    HostTpm20(tpm, TpmOptions()).certify_again(state, client, "host-1")

    assert protocol.request["token"] == ""
    assert kept is not None
    assert base64.b64decode(protocol.request["ak_public"]) == kept.public
    state.check_client()
    assert tpm.handles(0x80000000) == ()


def test_the_key_is_kept_before_anybody_is_asked(state: AgentState) -> None:
    first = public_keys.encode(state.next_key().public_key())

    assert public_keys.encode(state.next_key().public_key()) == first


def test_a_long_name_does_not_burst_the_certificate_request(
    protocol: Protocol, tpm: Tpm, state: AgentState
) -> None:
    name = "h" * 200 + ".example.com"
    client = VerifierClient([protocol.server.url], protocol.server.ca_file, None)

    enrolment.enrol(tpm, state, client, name, "token-1", "ecc-p256")

    assert protocol.request["host_name"] == name


def test_enrols_again_with_the_same_ak(protocol: Protocol, tpm: Tpm, state: AgentState) -> None:
    enrol(tpm, state, protocol.server)
    first = state.load_ak()
    Protocol(protocol.server, protocol.authority)

    enrol(tpm, state, protocol.server)

    assert state.load_ak() == first


def test_a_cleared_tpm_gets_a_new_ak(protocol: Protocol, tpm: Tpm, state: AgentState) -> None:
    """TPM2_Clear makes an old blob useless; the vendor's EK stays."""
    enrol(tpm, state, protocol.server)
    first = state.load_ak()
    tpm.execute("TPM2_Clear", 0x126, [0x4000000C], [0x40000009])
    Protocol(protocol.server, protocol.authority)

    enrol(tpm, state, protocol.server)

    second = state.load_ak()
    assert first is not None and second is not None and first.public != second.public
    state.check_client()


def test_another_kind_of_key_is_a_new_ak(protocol: Protocol, tpm: Tpm, state: AgentState) -> None:
    enrol(tpm, state, protocol.server)
    Protocol(protocol.server, protocol.authority)

    ak = enrol(tpm, state, protocol.server, kind="rsa-2048")

    assert isinstance(ak.key, tpm2.RsaKey)


def test_an_ak_is_kept_before_the_server_knows_it(
    tpm: Tpm, state: AgentState, verifier: FakeVerifier
) -> None:
    """A crash in between must not make the server know an AK that the host has lost."""
    with pytest.raises(errors.Unavailable):
        enrol(tpm, state, verifier)

    assert state.load_ak() is not None
    with pytest.raises(errors.InvalidConfig, match="not enrolled"):
        state.check_client()


def test_asks_the_next_server(
    make_verifier: Callable[..., FakeVerifier], authority: Authority, tpm: Tpm, state: AgentState
) -> None:
    first, second = make_verifier(), make_verifier()
    first.close()
    Protocol(second, authority)

    enrol(tpm, state, first, second)

    state.check_client()


def test_a_refusal_is_final(
    make_verifier: Callable[..., FakeVerifier], tpm: Tpm, state: AgentState
) -> None:
    first, second = make_verifier(), make_verifier()
    reason = "the token is not one for the enrolment of host-1"
    first.answers = [
        http(403, {"code": "token_unknown", "reason": f"refused (token_unknown): {reason}"})
    ]

    with pytest.raises(errors.Refused) as caught:
        enrol(tpm, state, first, second)

    assert str(caught.value) == f"refused (token_unknown): {reason}"
    assert second.requests == []
    assert tpm.handles(0x80000000) == ()


def test_does_not_open_a_credential_for_another_key(
    protocol: Protocol, tpm: Tpm, state: AgentState
) -> None:
    protocol.ak_name = b"\0\x0b" + bytes(32)

    with pytest.raises(TpmError, match="TPM2_ActivateCredential failed"):
        enrol(tpm, state, protocol.server)

    assert [path for path, _ in protocol.server.requests] == ["/v1/enrolment"]
    assert tpm.handles(0x80000000) == ()


def test_refuses_a_certificate_for_a_key_that_is_not_its_own(
    protocol: Protocol, tpm: Tpm, state: AgentState
) -> None:
    protocol.certified_key = ec.generate_private_key(ec.SECP256R1())

    with pytest.raises(errors.InvalidMessage, match="for another key"):
        enrol(tpm, state, protocol.server)
    assert not state.client_file.exists()


@pytest.mark.parametrize(
    "given",
    [
        http(200, b"no"),
        http(200, {}),
        http(200, {"enrolment": "7", "credential": "AAAA"}),
        http(204),
        http(200, {"enrolment": "7", "credential": "A" * 4000, "encrypted_secret": ""}),
    ],
)
def test_refuses_an_answer_that_is_no_challenge(
    given: bytes, verifier: FakeVerifier, tpm: Tpm, state: AgentState
) -> None:
    verifier.answers = [given]

    with pytest.raises(errors.InvalidMessage):
        enrol(tpm, state, verifier)


def test_reads_a_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc-123_\n")

    assert enrolment.read_token(tmp_path / "token") == "abc-123_"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"two words\n", b"\xff", b"x" * 129, b"x\n" * 1000]
)
def test_refuses_a_file_without_token(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content)

    with pytest.raises(errors.InvalidConfig, match="token"):
        enrolment.read_token(tmp_path / "token")


def test_says_that_the_token_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidConfig, match="No such file or directory"):
        enrolment.read_token(tmp_path / "token")
