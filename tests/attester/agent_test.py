# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The agent's loop against a server that is away, slow, huge, garbled or hostile.

Pauses are recorded, not waited.
"""

from __future__ import annotations

import base64
import datetime
import errno
import json
import logging
import os
import signal
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import agent as agent_module
from ovirt_tcp_plugin.attester import enrolment, hook_files, keys, measure, verifier_client
from ovirt_tcp_plugin.attester.agent import PACE_S, Agent
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.credentials import Credentials
from ovirt_tcp_plugin.attester.hook_files import HookFiles
from ovirt_tcp_plugin.attester.measure import Sources
from ovirt_tcp_plugin.attester.stop_flag import StopFlag
from ovirt_tcp_plugin.attester.tpm import Tpm
from ovirt_tcp_plugin.attester.trust import TrustedAuthorities
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.messages import evidence, tpm2
from ovirt_tcp_plugin.verifier.authority import Authority
from tests.attester import quotes
from tests.attester.fake_verifier import NOW, FakeVerifier, http, issue

CHALLENGE = evidence.encode_challenge(evidence.Challenge(bytes(32), {"sha256": (17, 18)}, 30_000))
TRUSTED = {"level": "trusted", "findings": []}
FINDING = {
    "check": 8,
    "code": "event_differs",
    "text": "PCR 17 differs",
    "expected": "aa",
    "seen": "bb",
}
NOTHING = http(204)


class RecordedPauses(StopFlag):
    """Its pauses take no time; `seconds` are those of each."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def pause(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Attester:
    """An agent with its recorded pauses."""

    def __init__(
        self, agent: Agent, pauses: list[float], state: AgentState, ak: keys.AttestationKey
    ) -> None:
        self.agent = agent
        self.pauses = pauses
        self.state = state
        self.ak = ak

    def status(self) -> dict[str, object]:
        return dict(self.state.load_status() or {})


@pytest.fixture
def make_attester(
    host: LabHost, tpm: Tpm, state: AgentState, authority: Authority
) -> Callable[..., Attester]:
    with keys.endorsement_key(tpm, ["rsa-2048"]) as endorsement:
        ak = keys.AttestationKey(tpm, keys.create_ak(tpm, endorsement, "ecc-p256"))
    key = ec.generate_private_key(ec.SECP256R1())
    state.keep_client(key, issue(authority, enrolment._certificate_request(key, "host-1")))

    def make(*servers: FakeVerifier, ca_file: Optional[Path] = None, draw: float = 1.0) -> Attester:
        urls = [server.url for server in servers]
        client = VerifierClient(urls, ca_file or servers[0].ca_file, state.client_file)
        sources = Sources(host.boot_id_file, {"txt": host.txt_log_file})
        stop_flag = RecordedPauses()
        hook_files = HookFiles(host.hooks_directory)
        agent = Agent(
            "host-1", state, tpm, ak, client, sources, hook_files, 30.0, stop_flag, lambda: draw
        )
        return Attester(agent, stop_flag.seconds, state, ak)

    return make


Make = Callable[..., Attester]


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_client, "CONNECT_WITHIN_S", 0.2)
    monkeypatch.setattr(verifier_client, "ANSWER_WITHIN_S", 0.3)
    monkeypatch.setattr(agent_module, "WAIT_MS", 100)


def test_reports_what_it_measured_and_keeps_the_result(
    make_attester: Make, verifier: FakeVerifier, host: LabHost, tmp_path: Path
) -> None:
    verifier.answers = [
        http(200, CHALLENGE),
        http(200, {"level": "untrusted", "findings": [FINDING]}),
    ]
    attester = make_attester(verifier)

    attester.agent.step()

    (asked, question), (reported, answer) = verifier.requests
    assert (asked, reported) == ("/v1/challenge", "/v1/evidence")
    assert question == {
        "wait_ms": 45_000,
        "boot_id": host.boot_id_file.read_text().strip(),
        "offer": True,
    }
    measured = evidence.decode(json.dumps(answer).encode())
    bound = evidence.qualifying_data(bytes(32), measured.boot_id, measured.boottime_ms)
    quotes.checkquote(attester.ak.blob.public, measured.attest, measured.signature, bound, tmp_path)
    assert measured.logs == {"txt": host.txt_log_file.read_bytes()}
    status = attester.status()
    assert status["level"] == "untrusted"
    assert status["findings"] == [FINDING]
    assert status["error"] == ""
    assert all(verifier.clients), "no client certificate was shown"


def test_only_names_the_log_that_the_server_has(
    make_attester: Make, verifier: FakeVerifier, host: LabHost
) -> None:
    digest = evidence.log_digest(host.txt_log_file.read_bytes())
    offering = {**CHALLENGE, "known_logs": {"txt": digest}}
    verifier.answers = [http(200, offering), http(200, TRUSTED)]
    make_attester(verifier).agent.step()

    _, (_, answer) = verifier.requests
    assert (answer["logs"], answer["log_digests"]) == ({}, {"txt": digest})
    summary = json.loads((host.hooks_directory / "summary.json").read_text())
    assert summary["logs"] == {"txt": digest}


@pytest.mark.parametrize(
    "known", [{}, {"txt": "a" * 64}, {"txt": "a" * 64, "firmware": "a" * 64}], ids=len
)
def test_sends_the_log_that_the_server_does_not_have(
    make_attester: Make, verifier: FakeVerifier, host: LabHost, known: dict[str, str]
) -> None:
    verifier.answers = [http(200, {**CHALLENGE, "known_logs": known}), http(200, TRUSTED)]
    make_attester(verifier).agent.step()

    _, (_, answer) = verifier.requests
    assert evidence.decode(json.dumps(answer).encode()).logs["txt"] == host.good_log()
    assert "log_digests" not in answer


def test_sends_its_log_at_once_when_the_server_turns_out_not_to_have_it(
    make_attester: Make, verifier: FakeVerifier, host: LabHost
) -> None:
    digest = evidence.log_digest(host.txt_log_file.read_bytes())
    offering = http(200, {**CHALLENGE, "known_logs": {"txt": digest}})
    unknown = http(403, {"code": "log_unknown", "reason": "refused (log_unknown): a log"})
    verifier.answers = [offering, unknown, offering, http(200, TRUSTED), offering, http(200, {})]
    attester = make_attester(verifier)
    for _ in range(3):
        attester.agent.step()

    named = ["log_digests" in body for path, body in verifier.requests if path == "/v1/evidence"]
    assert named == [True, False, True]
    offers = [body["offer"] for path, body in verifier.requests if path == "/v1/challenge"]
    assert offers[1] is True
    assert max(attester.pauses) <= 1


def test_takes_a_whole_result_too(make_attester: Make, verifier: FakeVerifier) -> None:
    whole = {**TRUSTED, "host_name": "host-1", "age_ms": 3, "lifetime_ms": 600_000, "boot_id": "x"}
    verifier.answers = [http(200, CHALLENGE), http(200, whole)]
    attester = make_attester(verifier)

    attester.agent.step()

    assert attester.status()["level"] == "trusted"


def test_keeps_the_ak_loaded_between_reports(
    make_attester: Make, verifier: FakeVerifier, tpm: Tpm
) -> None:
    verifier.answers = [http(200, CHALLENGE), http(200, TRUSTED)] * 2
    attester = make_attester(verifier)
    attester.agent.step()
    (loaded,) = tpm.handles(0x80000000)

    attester.agent.step()

    assert tpm.handles(0x80000000) == (loaded,)


def test_nothing_to_do_is_paced(make_attester: Make, verifier: FakeVerifier) -> None:
    """A server that answers at once, again and again, does not make the agent spin."""
    verifier.answers = [NOTHING] * 3
    attester = make_attester(verifier)

    for _ in range(3):
        attester.agent.step()

    assert len(attester.pauses) == 3
    assert all(PACE_S / 2 < pause <= PACE_S for pause in attester.pauses)


def test_replaces_its_certificate_in_good_time(
    make_attester: Make, verifier: FakeVerifier, authority: Authority
) -> None:
    def renew(connection: Any) -> None:
        request = base64.b64decode(verifier.requests[-1][1]["certificate_request"])
        connection.sendall(http(200, {"certificate": issue(authority, request)}))

    authorities = http(200, {"authorities": authority.pem.decode()})
    verifier.answers = [NOTHING, authorities, renew, NOTHING]
    attester = make_attester(verifier)
    days = 365 * 4
    care(attester, verifier, datetime.timedelta(days=days))

    attester.agent.step()
    attester.agent.step()

    assert [path for path, _ in verifier.requests] == [
        "/v1/challenge",
        "/v1/authority",
        "/v1/certificate",
        "/v1/challenge",
    ]
    old, asking, renewing, new = verifier.clients
    # The authorities are believed by new connections.
    assert old == asking == renewing != new
    attester.state.check_client()


def test_leaves_a_young_certificate_alone_at_a_server_of_an_earlier_release(
    make_attester: Make, verifier: FakeVerifier
) -> None:
    unknown = http(404, {"code": "NotFound", "reason": "there is nothing under this path"})
    verifier.answers = [NOTHING, unknown, NOTHING]
    attester = make_attester(verifier)
    care(attester, verifier, datetime.timedelta())

    attester.agent.step()
    attester.agent.step()

    paths = [path for path, _ in verifier.requests]
    assert paths == ["/v1/challenge", "/v1/authority", "/v1/challenge"]
    assert attester.status().get("error", "") == ""


def test_asks_by_its_chip_where_its_certificate_is_not_known(
    make_attester: Make, verifier: FakeVerifier
) -> None:
    stranger = http(401, {"code": "unauthenticated", "reason": "this needs agent"})
    verifier.answers = [stranger, NOTHING]
    attester = make_attester(verifier)
    proofs = care(attester, verifier, datetime.timedelta())

    attester.agent.step()

    assert proofs == ["proof"]
    assert attester.pauses == []


def care(attester: Attester, verifier: FakeVerifier, later: datetime.timedelta) -> list[str]:
    """Have the agent look after its certificate, so much later; return its proofs of the chip."""
    proofs: list[str] = []
    trusted = TrustedAuthorities(attester.state, verifier.ca_file)
    attester.agent._credentials = Credentials(
        "host-1",
        attester.state,
        attester.agent._client,
        trusted,
        lambda: proofs.append("proof"),
        lambda: NOW + later,
    )
    return proofs


BAD_ANSWERS = [
    pytest.param(b"", "unavailable", id="closes the connection"),
    pytest.param(b"220 mail.example.com ESMTP\r\n", "unavailable", id="not HTTP"),
    pytest.param(http(200, b"<html>"), "malformed answer: not JSON", id="not JSON"),
    pytest.param(http(200, b"\xff\xfe"), "malformed answer: not JSON", id="not UTF-8"),
    pytest.param(http(200, b"[" * 8_000), "malformed answer: not JSON", id="nested"),
    pytest.param(http(200, []), "not a JSON object", id="list"),
    pytest.param(http(200, {}), "malformed", id="empty object"),
    pytest.param(http(200, b"x" * (1024 * 1024 + 1)), "longer than 1048576 bytes", id="huge"),
    pytest.param(
        http(500, {"code": "x", "reason": "secret"}), "it answered with status 500", id="500"
    ),
    pytest.param(http(503), "it answered with status 503", id="503"),
    pytest.param(http(403, {"code": "nonce_expired", "reason": "too late"}), "too late", id="403"),
    pytest.param(http(401, {"code": "unauthenticated", "reason": "who?"}), "who?", id="401"),
    pytest.param(http(403, b"Forbidden"), "malformed error answer", id="403 of somebody else"),
    pytest.param(
        http(302, headers="Location: https://127.0.0.1:1/\r\n"),
        "unexpected status 302",
        id="redirect",
    ),
    pytest.param(http(201, {}), "unexpected status 201", id="201"),
]


@pytest.mark.parametrize(("given", "reason"), BAD_ANSWERS)
def test_a_bad_challenge_is_told_and_answered_by_a_pause(
    given: bytes, reason: str, make_attester: Make, verifier: FakeVerifier
) -> None:
    verifier.answers = [given]
    attester = make_attester(verifier)

    attester.agent.step()

    assert reason in str(attester.status()["error"])
    assert attester.pauses == [1.0]
    assert [path for path, _ in verifier.requests] == ["/v1/challenge"]


@pytest.mark.parametrize(("given", "reason"), BAD_ANSWERS)
def test_a_bad_result_leaves_the_last_one(
    given: bytes, reason: str, make_attester: Make, verifier: FakeVerifier
) -> None:
    verifier.answers = [http(200, CHALLENGE), http(200, TRUSTED), http(200, CHALLENGE), given]
    attester = make_attester(verifier)
    attester.agent.step()

    attester.agent.step()

    status = attester.status()
    assert status["level"] == "trusted"
    assert reason in str(status["error"])
    assert attester.pauses[-1] == 1.0


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": "AAAA"},
        {"nonce": None},
        {"selection": {}},
        {"selection": {"md5": [1]}},
        {"selection": {"sha1": [17], "sha256": [17]}},
        {"selection": {"sha256": [24]}},
        {"selection": {"sha256": [True]}},
        {"lifetime_ms": -1},
    ],
)
def test_measures_nothing_for_a_malformed_challenge(
    changed: dict[str, object], make_attester: Make, verifier: FakeVerifier
) -> None:
    verifier.answers = [http(200, {**CHALLENGE, **changed})]
    attester = make_attester(verifier)

    attester.agent.step()

    assert "malformed" in str(attester.status()["error"])
    assert len(verifier.requests) == 1


def test_pauses_grow_to_their_bound_and_start_anew(
    make_attester: Make, verifier: FakeVerifier
) -> None:
    verifier.answers = [http(500)] * 7 + [NOTHING, http(500)]
    attester = make_attester(verifier)

    for _ in range(9):
        attester.agent.step()

    assert attester.pauses[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert attester.pauses[7] <= PACE_S
    assert attester.pauses[8] == 1


def test_jitter_halves_a_pause_at_most(make_attester: Make, verifier: FakeVerifier) -> None:
    verifier.answers = [http(500)]
    attester = make_attester(verifier, draw=0.0)

    attester.agent.step()

    assert attester.pauses == [0.5]


def test_a_server_that_is_away(make_attester: Make, verifier: FakeVerifier) -> None:
    verifier.close()
    attester = make_attester(verifier)

    attester.agent.step()

    assert "Connection refused" in str(attester.status()["error"])
    assert attester.pauses == [1.0]


def test_asks_the_next_server_without_a_pause(
    make_attester: Make, make_verifier: Callable[..., FakeVerifier]
) -> None:
    first, second = make_verifier(), make_verifier()
    first.close()
    second.answers = [http(200, CHALLENGE), http(200, TRUSTED), NOTHING]
    attester = make_attester(first, second)

    attester.agent.step()
    assert attester.pauses == []
    attester.agent.step()
    attester.agent.step()

    assert attester.status()["server"] == second.url
    assert [path for path, _ in second.requests] == [
        "/v1/challenge",
        "/v1/evidence",
        "/v1/challenge",
    ]


def test_pauses_when_all_servers_have_failed(
    make_attester: Make, make_verifier: Callable[..., FakeVerifier]
) -> None:
    servers = make_verifier(), make_verifier()
    for server in servers:
        server.close()
    attester = make_attester(*servers)

    for _ in range(4):
        attester.agent.step()

    assert attester.pauses == [1.0, 2.0]


def test_a_refusal_does_not_send_it_to_the_next_server(
    make_attester: Make, make_verifier: Callable[..., FakeVerifier]
) -> None:
    first, second = make_verifier(), make_verifier()
    first.answers = [http(403, {"code": "x", "reason": "y"})]
    attester = make_attester(first, second)

    attester.agent.step()

    assert attester.pauses == [1.0]
    assert second.requests == []


@pytest.mark.usefixtures("short_waits")
def test_a_silent_server_is_given_up(make_attester: Make, verifier: FakeVerifier) -> None:
    verifier.answers = [verifier.hold]
    attester = make_attester(verifier)

    attester.agent.step()

    assert "no whole answer within" in str(attester.status()["error"])


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"HTTP/1.1 200 -\r\nX-Endless: ", id="header"),
        pytest.param(b"HTTP/1.1 200 -\r\nContent-Length: 100000\r\n\r\n", id="body"),
    ],
)
def test_a_dripping_server_is_given_up(
    start: bytes, make_attester: Make, verifier: FakeVerifier
) -> None:
    """Each byte comes in time, the answer never does."""
    verifier.answers = [verifier.drip(start)]
    attester = make_attester(verifier)

    attester.agent.step()

    assert "no whole answer within" in str(attester.status()["error"])
    verifier.answers = [NOTHING]
    attester.agent.step()
    assert attester.status()["error"] == ""


def test_refuses_a_server_of_another_authority(
    make_attester: Make,
    make_verifier: Callable[..., FakeVerifier],
    tmp_path: Path,
    verifier: FakeVerifier,
) -> None:
    (tmp_path / "other").mkdir()
    impostor = make_verifier(signed_by=Authority.create(tmp_path / "other", NOW))
    attester = make_attester(impostor, ca_file=verifier.ca_file)

    attester.agent.step()

    assert "its certificate is not good" in str(attester.status()["error"])
    assert impostor.requests == []


def test_refuses_a_server_of_another_name(
    make_attester: Make, make_verifier: Callable[..., FakeVerifier]
) -> None:
    other = make_verifier(name="127.0.0.2")
    attester = make_attester(other)

    attester.agent.step()

    assert "127.0.0.1" in str(attester.status()["error"])
    assert other.requests == []


def test_takes_neither_proxy_nor_authority_from_the_environment(
    make_attester: Make, verifier: FakeVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    verifier.answers = [NOTHING]
    attester = make_attester(verifier)

    attester.agent.step()

    assert len(verifier.requests) == 1


def test_a_missing_authority_file_is_told(
    make_attester: Make, verifier: FakeVerifier, tmp_path: Path
) -> None:
    attester = make_attester(verifier, ca_file=tmp_path / "absent.pem")

    attester.agent.step()

    assert "absent.pem" in str(attester.status()["error"])


def test_a_tpm_that_is_away_is_no_fault_of_the_server(
    make_attester: Make,
    make_verifier: Callable[..., FakeVerifier],
    host: LabHost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = make_verifier(), make_verifier()
    first.answers = [http(200, CHALLENGE)] * 2
    attester = make_attester(first, second)
    monkeypatch.setattr("ovirt_tcp_plugin.lab.swtpm.CONNECT_WITHIN_S", 0.05)
    attester.agent._tpm.transport._connect_within_s = 0.05
    host.swtpm.stop()

    attester.agent.step()
    attester.agent.step()

    assert str(attester.status()["error"]).startswith("TPM unix:")
    assert attester.pauses == [1.0, 2.0]
    assert second.requests == []


def test_goes_on_after_a_reset_of_the_tpm(
    make_attester: Make, verifier: FakeVerifier, host: LabHost, tpm: Tpm
) -> None:
    verifier.answers = [http(200, CHALLENGE), http(200, TRUSTED)] * 2
    attester = make_attester(verifier)
    attester.agent.step()
    tpm.close()
    host.boot()

    attester.agent.step()

    before, after = (verifier.requests[number][1] for number in (1, 3))
    assert before["boot_id"] != after["boot_id"]
    counts = [
        tpm2.parse_quote(evidence.decode(json.dumps(e).encode()).attest).reset_count
        for e in (before, after)
    ]
    assert counts[1] == counts[0] + 1


def test_a_full_disk_does_not_keep_it_from_reporting(
    make_attester: Make,
    verifier: FakeVerifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(_: object) -> None:
        raise errors.Unavailable("state file", "No space left on device")

    verifier.answers = [http(200, CHALLENGE), http(200, TRUSTED), NOTHING]
    attester = make_attester(verifier)
    monkeypatch.setattr(attester.state, "keep_status", full)

    attester.agent.step()
    attester.agent.step()

    assert len(verifier.requests) == 3
    assert "No space left on device" in caplog.text


def test_a_broken_status_file_does_not_keep_it_from_starting(
    make_attester: Make, verifier: FakeVerifier, host: LabHost
) -> None:
    (host.state_directory / "status.json").write_bytes(b"{")
    verifier.answers = [http(200, CHALLENGE), http(200, TRUSTED)]
    attester = make_attester(verifier)

    attester.agent.step()

    assert attester.status()["level"] == "trusted"


def test_tells_the_same_fault_once(
    make_attester: Make, verifier: FakeVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    verifier.answers = [http(500)] * 3 + [NOTHING]
    attester = make_attester(verifier)

    for _ in range(4):
        attester.agent.step()

    assert caplog.text.count("it answered with status 500") == 1
    assert "recovered server=" in caplog.text


def test_hands_the_signed_verdict_and_a_summary_to_the_hooks(
    make_attester: Make, verifier: FakeVerifier, host: LabHost
) -> None:
    verifier.answers = [
        http(200, CHALLENGE),
        http(200, {**TRUSTED, "verdict": "a.b.c", "tpm_family": "2.0"}),
    ]

    make_attester(verifier).agent.step()

    kept = host.hooks_directory / "verdict.jwt"
    assert kept.read_text() == "a.b.c\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o644
    summary = json.loads((host.hooks_directory / "summary.json").read_text())
    assert (summary["tpm"], summary["txt_launch"], summary["level"]) == ("2.0", True, "trusted")
    assert sorted(summary["pcrs"]) == ["17", "18", "19"]
    assert summary["boot_id"] == host.boot_id_file.read_text().strip()
    assert not list(host.hooks_directory.glob("*.new"))


def test_an_untrusted_verdict_takes_the_place_of_the_trusted_one(
    make_attester: Make, verifier: FakeVerifier, host: LabHost
) -> None:
    untrusted = {"level": "untrusted", "findings": [FINDING], "verdict": "it.is.not"}
    verifier.answers = [
        http(200, CHALLENGE),
        http(200, {**TRUSTED, "verdict": "a.b.c"}),
        http(200, CHALLENGE),
    ]
    verifier.answers.append(http(200, untrusted))
    attester = make_attester(verifier)

    attester.agent.step()
    attester.agent.step()

    assert (host.hooks_directory / "verdict.jwt").read_text() == "it.is.not\n"


def test_a_verdict_that_cannot_be_kept_leaves_the_one_before_and_does_not_stop_it(
    make_attester: Make, verifier: FakeVerifier, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    verifier.answers = [
        http(200, CHALLENGE),
        http(200, {**TRUSTED, "verdict": "a.b.c"}),
        http(200, CHALLENGE),
    ]
    verifier.answers += [http(200, {**TRUSTED, "verdict": "d.e.f"}), NOTHING]
    attester = make_attester(verifier)
    attester.agent.step()
    monkeypatch.setattr(hook_files.os, "fchmod", full)

    attester.agent.step()
    attester.agent.step()

    assert (host.hooks_directory / "verdict.jwt").read_text() == "a.b.c\n"
    assert len(verifier.requests) == 5


def test_a_signal_ends_the_wait_and_it_offers_to_report(
    make_attester: Make, verifier: FakeVerifier
) -> None:
    def hang_up_call(connection: object) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.2)

    verifier.answers = [
        http(200, CHALLENGE),
        http(200, TRUSTED),
        hang_up_call,
        http(200, CHALLENGE),
        http(200, TRUSTED),
    ]
    attester = make_attester(verifier)
    attester.agent.step()
    before = signal.signal(signal.SIGHUP, lambda number, frame: attester.agent.offer())
    try:
        attester.agent.step()
    finally:
        signal.signal(signal.SIGHUP, before)

    attester.agent.step()

    offers = [question["offer"] for path, question in verifier.requests if path == "/v1/challenge"]
    assert offers == [True, False, True]
    assert attester.status()["error"] == ""


def test_a_stop_while_it_measures_ends_it_without_a_report(
    make_attester: Make, verifier: FakeVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier.answers = [http(200, CHALLENGE), verifier.hold]
    attester = make_attester(verifier)
    read = measure.read_log

    def read_while_stopped(kind: str, path: Path, max_size: int) -> Optional[bytes]:
        attester.agent.stop()
        return read(kind, path, max_size)

    monkeypatch.setattr(measure, "read_log", read_while_stopped)

    attester.agent.run()

    assert [path for path, _ in verifier.requests] == ["/v1/challenge"]
    assert attester.status().get("error", "") == ""
    assert attester.pauses == []


def test_a_signal_while_the_server_drips_ends_the_wait(
    make_attester: Make, verifier: FakeVerifier
) -> None:
    drip = verifier.drip(b"HTTP/1.1 200 -\r\nX-Endless: ")

    def signal_and_drip(connection: ssl.SSLSocket) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        drip(connection)

    verifier.answers = [signal_and_drip]
    attester = make_attester(verifier)
    before = signal.signal(signal.SIGTERM, lambda number, frame: attester.agent.stop())
    try:
        attester.agent.run()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert attester.status().get("error", "") == ""


def test_a_signal_while_it_measures_waits_for_the_next_question(
    make_attester: Make, verifier: FakeVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier.answers = [http(200, CHALLENGE), http(200, TRUSTED), NOTHING]
    attester = make_attester(verifier)
    read = measure.read_log

    def read_while_called(kind: str, path: Path, max_size: int) -> Optional[bytes]:
        attester.agent.offer()
        return read(kind, path, max_size)

    monkeypatch.setattr(measure, "read_log", read_while_called)

    attester.agent.step()

    assert attester.status()["level"] == "trusted"
