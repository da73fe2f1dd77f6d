# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The verifier over real HTTPS.

Who may call what, enrolment, rounds of attestation, OpenAttestation's question.
"""

from __future__ import annotations

import base64
import concurrent.futures
import datetime
import functools
import gzip
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import (
    enrolment,
    evidence,
    json_fields,
    public_keys,
    tpm2,
)
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.tokens import digest, identifier
from ovirt_tcp_plugin.verifier.authority import AK_CERTIFICATE_USAGE, Authority, write_key
from ovirt_tcp_plugin.verifier.settings import Appraisal
from ovirt_tcp_plugin.verifier.store import hosts, references, tokens
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.web import server as web
from ovirt_tcp_plugin.verifier.web.access import TOKEN_ROLES, CallerKind, Networks
from tests.verifier.administrator import SETS
from tests.verifier.agent import Agent
from tests.verifier.enrolled import certificate_request
from tests.verifier.live_server import DEADLINE_MS, POLL, Server, level_of
from tests.verifier.software_tpm import AK_ATTRIBUTES, SoftwareTpm, ecc_public, launch_events
from tests.verifier.vendor import NOW, Vendor

MAY = {
    "agent": {"agent"},
    "viewer": {"viewer"},
    "operator": {"viewer", "operator"},
    "policy": {"viewer", "policy"},
    "enrolment": {"enrolment"},
    "oat_network": {"oat_network"},
    "metrics_network": {"metrics_network"},
}
STRANGERS = ["nobody", "single-use token", "wrong token", "ended token", "removed agent"]


class TestCallers:
    def test_every_route_declares_its_callers(self) -> None:
        assert [path for path, handler in web.ROUTES if not handler.callers] == []

    @pytest.mark.parametrize("caller", [*MAY, *STRANGERS])
    def test_every_route_answers_only_whom_it_declares(
        self, server: Server, vendor: Vendor, caller: str
    ) -> None:
        roles, session = MAY.get(caller, set()), requests.Session()
        session.trust_env, session.verify = False, str(server.directory / "ca.pem")
        shown = self.shows(server, vendor, caller)
        session.cert = shown.get("cert")
        session.headers["Authorization"] = f"Bearer {shown.get('token')}"
        for path, handler in web.ROUTES:
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
                declared = {one.value for one in handler.callers_of(method)}
                called = path.replace("([^/]+)", "none").replace("(add|activate|withdraw)", "add")
                answer = session.request(
                    method, f"https://127.0.0.1:{server.port}{called}", timeout=10
                )
                admitted = bool(declared & (roles | {"anyone"}))
                assert (answer.status_code != 401) is admitted, (method, path, answer.status_code)
        session.close()

    @staticmethod
    def shows(server: Server, vendor: Vendor, caller: str) -> dict[str, Any]:
        """Return what a caller shows of himself with each request."""
        if caller in ("agent", "removed agent"):
            agent = Agent(server, vendor).enrol()
            if caller == "removed agent":
                server.database.transact(lambda c: hosts.remove(c, "host-1"))
            return {"cert": agent.certificate}
        if caller.endswith("_network"):
            server._context.networks[CallerKind(caller)] = Networks(["127.0.0.0/8"])
            return {}
        if caller == "ended token":
            server.add_token("ended", Token("policy", end_s=1))
        made = {
            "single-use token": ("enrolment", "host-9"),
            **{role: (role, "") for role in TOKEN_ROLES},
        }
        named = {"wrong token": "no such token", "ended token": "ended", "nobody": None}
        return {"token": server.token(*made[caller]) if caller in made else named[caller]}

    def test_a_certificate_of_another_authority_is_refused(
        self, server: Server, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        stranger = Authority.create(other, NOW)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = stranger.issue_agent("host-1", certificate_request(key), NOW)
        (tmp_path / "s.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_key(tmp_path / "s.key", key)
        with pytest.raises(requests.exceptions.ConnectionError):
            server.call(
                "POST", "/v1/challenge", {}, cert=(str(tmp_path / "s.pem"), str(tmp_path / "s.key"))
            )

    def test_nova_shows_its_token_as_auth_blob(self, server: Server) -> None:
        headers = {"x-auth-blob": server.token("viewer")}
        assert server.call("POST", POLL, {"hosts": ["x"]}, headers=headers).status_code == 200

    @pytest.mark.each_database
    def test_a_token_that_ended_or_was_removed_opens_nothing(self, server: Server) -> None:
        server.add_token("old", Token("viewer", end_s=1))
        assert server.call("GET", "/v1/hosts", token="old").status_code == 401
        mine = server.token("viewer")
        assert server.call("GET", "/v1/hosts", token=mine).status_code == 200
        server.database.transact(lambda c: tokens.remove(c, identifier(digest(mine))))
        assert server.call("GET", "/v1/hosts", token=mine).status_code == 401

    def test_a_compressed_body_is_not_expanded(self, server: Server) -> None:
        bomb = gzip.compress(b'{"hosts": [' + b'"x",' * 2**22 + b'"x"]}')
        headers = {"Content-Encoding": "gzip"}
        answer = server.call("POST", POLL, bomb, token=server.token("viewer"), headers=headers)
        assert len(bomb) < 64 * 1024
        assert answer.status_code == 400

    def test_unknown_paths_exist_for_nobody(self, server: Server) -> None:
        answer = server.call("GET", "/v1/secrets")
        assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")


@pytest.mark.each_database
class TestEnrolment:
    def test_refuses_an_unrestricted_ak(self, server: Server, vendor: Vendor) -> None:
        agent = Agent(server, vendor)
        agent.tpm.ak = ecc_public(
            agent.tpm.ak_key, AK_ATTRIBUTES & ~tpm2.RESTRICTED, tpm2.ALG_ECDSA
        )
        answer = agent.begin(server.token("enrolment", "host-1"))
        assert (answer.status_code, answer.json()["code"]) == (403, "ak_unrestricted")

    def test_refuses_a_second_name_for_one_ek(
        self, server: Server, vendor: Vendor, agent: Agent
    ) -> None:
        answer = Agent(server, vendor, "host-2").begin(server.token("enrolment", "host-2"))
        assert (answer.status_code, answer.json()["code"]) == (403, "ek_in_use")

    def test_refuses_a_second_tpm_under_a_known_name(
        self, server: Server, vendor: Vendor, agent: Agent
    ) -> None:
        answer = Agent(server, vendor, tpm=SoftwareTpm(1)).begin(
            server.token("enrolment", "host-1")
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "name_in_use")

    @pytest.mark.parametrize("token", ["", "wrong", "of another host", "viewer"])
    def test_refuses_without_the_hosts_own_token(
        self, server: Server, vendor: Vendor, token: str
    ) -> None:
        secret = {
            "of another host": server.token("enrolment", "host-2"),
            "viewer": server.token("viewer"),
        }
        answer = Agent(server, vendor).begin(secret.get(token, token))
        assert (answer.status_code, answer.json()["code"]) == (403, "token_unknown")

    def test_refuses_an_unknown_vendor(self, server: Server) -> None:
        answer = Agent(server, Vendor("stranger")).begin(server.token("enrolment", "host-1"))
        assert (answer.status_code, answer.json()["code"]) == (403, "ek_untrusted")

    def test_refuses_names_that_are_none(self, server: Server, vendor: Vendor) -> None:
        for name in ("HOST", "a b", "-x", "_privacyca", "x/../y", "x" * 256):
            answer = Agent(server, vendor, name).begin("any")
            assert answer.json()["code"] in ("host_name", "InvalidMessage"), name

    def test_refuses_who_cannot_read_the_secret(self, server: Server, vendor: Vendor) -> None:
        agent = Agent(server, vendor)
        begun = agent.begin(server.token("enrolment", "host-1")).json()
        answer = agent.finish(begun, secret=b"guess" * 6)
        assert (answer.status_code, answer.json()["code"]) == (403, "bad_proof")
        assert server.database.transact(hosts.names) == []
        again = agent.finish(begun)
        assert (again.status_code, again.json()["code"]) == (403, "enrolment_unknown")

    def test_a_refused_proof_tells_nothing_of_the_secret(
        self, server: Server, vendor: Vendor
    ) -> None:
        agent = Agent(server, vendor)
        begun = agent.begin(server.token("enrolment", "host-1")).json()
        challenge = enrolment.decode_challenge(begun)
        secret = agent.tpm.activate(challenge.credential, challenge.encrypted_secret)
        request = certificate_request(agent.key, "host-1")
        expected = enrolment.qualifying_data(secret, request)
        answer = agent.finish(begun, secret=b"guess" * 6)
        told = answer.text + str(answer.headers)
        for one in (secret, expected):
            assert one.hex() not in told.lower()
            assert base64.b64encode(one).decode() not in told

    def test_refuses_a_certificate_request_put_in_by_a_relay(
        self, server: Server, vendor: Vendor
    ) -> None:
        agent = Agent(server, vendor)
        begun = agent.begin(server.token("enrolment", "host-1")).json()
        stolen = certificate_request(ec.generate_private_key(ec.SECP256R1()))
        answer = agent.finish(begun, asked=stolen)
        assert (answer.status_code, answer.json()["code"]) == (403, "bad_proof")

    def test_a_slow_chip_has_minutes_for_its_proof_and_not_for_ever(
        self, server: Server, vendor: Vendor
    ) -> None:
        agent = Agent(server, vendor)
        token = server.token("enrolment", "host-1")
        for seconds, code in ((181, "enrolment_unknown"), (170, "")):
            begun = agent.begin(token).json()
            server.clock.offset_ms += seconds * 1000
            assert agent.finish(begun).json().get("code", "") == code

    def test_a_token_enrols_one_chip_once(self, server: Server, vendor: Vendor) -> None:
        agent, token = Agent(server, vendor), server.token("enrolment", "host-1")
        spare = server.token("enrolment", "host-1")
        first, second, third = (agent.begin(one).json() for one in (token, token, spare))
        answer = agent.finish(first)
        assert (answer.status_code, answer.json()["code"]) == (403, "enrolment_unknown")
        assert agent.finish(second).status_code == 200
        # The chip that is bound already needs no token that still counts.
        assert agent.finish(third).status_code == 200
        stranger = Agent(server, vendor, "host-1", SoftwareTpm(1))
        answer = stranger.begin(token)
        assert (answer.status_code, answer.json()["code"]) == (403, "token_unknown")

    def test_a_token_ends(self, server: Server, vendor: Vendor) -> None:
        server.add_token("old", Token("enrolment", "host-1", end_s=1))
        answer = Agent(server, vendor).begin("old")
        assert (answer.status_code, answer.json()["code"]) == (403, "token_ended")

    def test_one_token_cannot_keep_others_from_enrolling(
        self, server: Server, vendor: Vendor
    ) -> None:
        agent, token = Agent(server, vendor), server.token("enrolment", "host-1")
        assert {agent.begin(token).status_code for _ in range(20)} == {200}
        assert len(server.enrolment._pending) == 1

    def test_a_name_cannot_write_lines_into_the_log(
        self, server: Server, vendor: Vendor, caplog: pytest.LogCaptureFixture
    ) -> None:
        forged = "h\nINFO verifier.attestation appraised host=host-9 level=trusted"
        with caplog.at_level("INFO"):
            answer = Agent(server, vendor).begin("any", host_name=forged)
        assert (answer.status_code, answer.json()["code"]) == (403, "host_name")
        assert "host-9" not in caplog.text

    def test_gives_a_client_certificate_and_nothing_more(
        self, server: Server, agent: Agent
    ) -> None:
        assert agent.certificate is not None
        certificate = x509.load_pem_x509_certificate(Path(agent.certificate[0]).read_bytes())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert not constraints.ca
        assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]

    def test_gives_a_certificate_of_the_ak(
        self, server: Server, vendor: Vendor, authority: Authority
    ) -> None:
        agent = Agent(server, vendor)
        begun = agent.begin(server.token("enrolment", "host-1"))
        certificate = x509.load_pem_x509_certificate(
            agent.finish(begun.json()).json()["ak_certificate"].encode()
        )
        issuer = authority.certificate.public_key()
        assert isinstance(issuer, ec.EllipticCurvePublicKey)
        issuer.verify(
            certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
        )
        assert public_keys.encode(certificate.public_key()) == public_keys.encode(
            agent.tpm.ak_key.public_key()
        )
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [AK_CERTIFICATE_USAGE]
        assert public_keys.digest(agent.tpm.ek) in certificate.subject.rfc4514_string()

    def test_refuses_a_tpm_for_which_nobody_vouches_and_says_how_to(
        self, server: Server, vendor: Vendor
    ) -> None:
        agent = Agent(server, vendor).without_certificate()
        answer = agent.begin(server.token("enrolment", "host-1"))
        assert (answer.status_code, answer.json()["code"]) == (403, "ek_uncertified")
        assert f"ek add host-1 {public_keys.digest(agent.tpm.ek)}" in answer.json()["reason"]

    def test_refuses_a_tpm_that_is_registered_for_another_host(
        self, server: Server, vendor: Vendor
    ) -> None:
        agent = Agent(server, vendor)
        server.register(agent.tpm, "host-2")
        answer = agent.begin(server.token("enrolment", "host-1"))
        assert (answer.status_code, answer.json()["code"]) == (403, "ek_registered_elsewhere")

    def test_a_registered_tpm_needs_no_vendor(self, server: Server, vendor: Vendor) -> None:
        agent = Agent(server, Vendor("stranger"))
        server.register(agent.tpm, "host-1")
        agent.without_certificate().enrol()
        host = server.database.transact(lambda c: hosts.find(c, "host-1"))
        assert host is not None
        assert host.endorsed_by == "registered"

    def test_first_use_is_a_setting_and_marks_the_host(
        self, server: Server, vendor: Vendor
    ) -> None:
        server.enrolment._first_use = True
        Agent(server, vendor).without_certificate().enrol()
        (shown,) = server.call("GET", "/v1/hosts", token=server.token("viewer")).json()["hosts"]
        assert shown["endorsed_by"] == "first_use"

    def test_first_use_never_excuses_a_bad_certificate(self, server: Server) -> None:
        server.enrolment._first_use = True
        answer = Agent(server, Vendor("stranger")).begin(server.token("enrolment", "host-1"))
        assert (answer.status_code, answer.json()["code"]) == (403, "ek_untrusted")

    def test_a_renewed_certificate_takes_the_place_of_the_old_one(
        self, server: Server, agent: Agent
    ) -> None:
        key, old = ec.generate_private_key(ec.SECP256R1()), agent.certificate
        message = {"certificate_request": json_fields.encode_blob(certificate_request(key))}
        answer = server.call("POST", "/v1/certificate", message, cert=old)
        assert answer.status_code == 200
        agent.keep_certificate(answer.json()["certificate"], key)
        assert agent.challenge() is not None
        assert server.call("POST", "/v1/challenge", {}, cert=old).status_code == 401

    def test_a_reinstalled_host_shuts_out_its_old_agent(
        self, server: Server, vendor: Vendor, agent: Agent
    ) -> None:
        old = agent.certificate
        again = Agent(server, vendor).enrol()
        assert server.call("POST", "/v1/challenge", {}, cert=old).status_code == 401
        assert again.challenge() is not None


@pytest.mark.each_database
class TestRounds:
    def test_a_boot_that_was_never_appraised_is_challenged_at_once(
        self, server: Server, agent: Agent
    ) -> None:
        server.choose_good_boot()
        answer = agent.answer(agent.challenge())
        assert (answer.status_code, answer.json()["level"]) == (200, "trusted")
        assert agent.challenge(wait_ms=0) is None

    def test_no_two_challenges_are_the_same(self, server: Server, agent: Agent) -> None:
        nonces = set()
        for number in range(10):
            agent.tpm.boot_id = f"{number:08}-0000-0000-0000-000000000000"
            challenge = agent.challenge()
            assert challenge is not None
            nonces.add(challenge.nonce)
        assert {len(nonce) for nonce in nonces} == {32}
        assert len(nonces) == 10
        # Of 256 bits that are drawn by chance, hardly one is the same in all of ten.
        always = functools.reduce(
            lambda one, other: one & other, (int.from_bytes(nonce, "big") for nonce in nonces)
        )
        assert bin(always).count("1") < 8

    def test_replayed_evidence_is_discarded_and_changes_nothing(
        self, server: Server, agent: Agent
    ) -> None:
        server.choose_good_boot()
        challenge = agent.challenge()
        assert challenge is not None
        message = agent.evidence(challenge)
        assert agent.send(message).status_code == 200
        answer = agent.send(message)
        assert (answer.status_code, answer.json()["code"]) == (403, "nonce_unknown")
        assert level_of(server) == "trusted"

    def test_evidence_by_another_ak_is_discarded_and_changes_nothing(
        self, server: Server, agent: Agent
    ) -> None:
        server.choose_good_boot()
        agent.answer(agent.challenge())
        agent.tpm.boot_id = agent.tpm.boot_id.replace("1", "2")
        challenge = agent.challenge()
        agent.tpm.ak_key = SoftwareTpm(1).ak_key
        answer = agent.answer(challenge)
        assert (answer.status_code, answer.json()["code"]) == (403, "bad_signature")
        assert level_of(server) == "trusted"

    def test_a_tampered_host_is_told_why(self, server: Server, agent: Agent) -> None:
        server.choose_good_boot()
        agent.tpm.boot(launch_events(tboot=b"tampered"))
        answer = agent.answer(agent.challenge()).json()
        assert (answer["level"], answer["findings"][0]["code"]) == ("untrusted", "mle_differs")

    def test_without_reference_values_nobody_is_judged(self, server: Server, agent: Agent) -> None:
        agent.tpm.boot(launch_events(tboot=b"tampered"))
        assert agent.answer(agent.challenge()).json()["level"] == "unknown"

    def test_silence_does_not_soften_untrusted(self, server: Server, agent: Agent) -> None:
        server.choose_good_boot()
        agent.tpm.never_launch()
        agent.answer(agent.challenge())
        answer = server.call("POST", POLL, {"hosts": ["host-1"]}, token=server.token("viewer"))
        assert answer.json()["hosts"][0]["trust_lvl"] == "untrusted"

    @pytest.mark.parametrize("change", ["kexec", "TPM reset", "clock back"])
    def test_a_host_whose_counters_lie_stays_untrusted_until_it_reboots(
        self, server: Server, agent: Agent, change: str
    ) -> None:
        server.choose_good_boot()
        assert agent.answer(agent.challenge()).json()["level"] == "trusted"
        if change == "kexec":
            agent.tpm.boot_id = agent.tpm.boot_id.replace("1", "2")
        elif change == "TPM reset":
            agent.tpm.reset_count += 1
        else:
            agent.tpm.clock -= 500
        for _ in range(3):
            server.judge_all()
            assert agent.answer(agent.challenge()).json()["level"] == "untrusted"
        agent.tpm.boot_id, agent.tpm.reset_count = (
            agent.tpm.boot_id.replace("5", "6"),
            agent.tpm.reset_count + 1,
        )
        assert agent.answer(agent.challenge()).json()["level"] == "trusted"

    def test_a_long_poll_that_was_given_up_swallows_no_challenge(
        self, server: Server, agent: Agent
    ) -> None:
        server.choose_good_boot()
        agent.answer(agent.challenge())
        for _ in range(3):
            message = {"boot_id": agent.tpm.boot_id, "wait_ms": 30_000}
            with pytest.raises(requests.exceptions.ReadTimeout):
                server.call("POST", "/v1/challenge", message, cert=agent.certificate, timeout=0.3)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            token = server.token("viewer")
            polled = pool.submit(server.call, "POST", POLL, {"hosts": ["host-1"]}, token=token)
            agent.answer(agent.challenge())
            assert polled.result().json()["hosts"][0]["trust_lvl"] == "trusted"

    def test_a_second_long_poll_ends_the_first(self, server: Server, agent: Agent) -> None:
        agent.answer(agent.challenge())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(agent.challenge, 20_000)
            deadline = time.monotonic() + 5
            long_poll = server.attestation._long_polls.of("host-1")
            while not long_poll.listening and time.monotonic() < deadline:
                time.sleep(0.01)
            assert agent.challenge(0) is None
            assert first.result(5) is None

    def test_evidence_that_nobody_asked_for_is_not_read(self, server: Server, agent: Agent) -> None:
        answer = server.call("POST", "/v1/evidence", b"{" * 1_000_000, cert=agent.certificate)
        assert (answer.status_code, answer.json()["code"]) == (403, "nonce_unknown")

    def test_evidence_that_cannot_be_read_spends_its_nonce(
        self, server: Server, agent: Agent
    ) -> None:
        challenge = agent.challenge()
        assert (
            server.call("POST", "/v1/evidence", b"rubbish", cert=agent.certificate).status_code
            == 400
        )
        assert agent.answer(challenge).json()["code"] == "nonce_unknown"

    def test_a_golden_host_becomes_the_reference(
        self, server: Server, vendor: Vendor, agent: Agent
    ) -> None:
        other = Agent(server, vendor, "host-2", SoftwareTpm(1)).enrol()
        agent.answer(agent.challenge())
        other.answer(other.challenge())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            message, token = {"name": "golden", "host": "host-1"}, server.token("policy")
            imported = pool.submit(
                server.call, "POST", "/v1/reference-values", message, token=token
            )
            agent.answer(agent.challenge())
            assert imported.result().status_code == 200
        assert agent.answer(agent.challenge()).json()["level"] == "trusted"
        assert other.answer(other.challenge()).json()["level"] == "trusted"

    def test_a_host_without_a_launch_cannot_be_golden(self, server: Server, agent: Agent) -> None:
        agent.tpm.never_launch()
        agent.answer(agent.challenge())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            message, token = {"name": "golden", "host": "host-1"}, server.token("policy")
            imported = pool.submit(
                server.call, "POST", "/v1/reference-values", message, token=token
            )
            agent.answer(agent.challenge())
            answer = imported.result()
        assert answer.status_code == 409
        assert "cannot be golden" in answer.json()["reason"]
        assert server.database.transact(references.load).sets == ()


class TestPollHosts:
    def test_asks_the_host_anew_and_one_silent_host_costs_only_the_deadline(
        self, server: Server, vendor: Vendor, agent: Agent
    ) -> None:
        server.choose_good_boot()
        Agent(server, vendor, "silent", SoftwareTpm(1)).enrol()
        agent.answer(agent.challenge())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            names, token = ["nobody", "Host-1", "silent"], server.token("viewer")
            began = time.monotonic()
            polled = pool.submit(
                server.call, "POST", POLL, {"hosts": names, "count": 3}, token=token
            )
            agent.answer(agent.challenge())
            hosts = polled.result().json()["hosts"]
        assert time.monotonic() - began < DEADLINE_MS / 1000 + 2
        assert [(one["host_name"], one["trust_lvl"]) for one in hosts] == [
            ("nobody", "unknown"),
            ("Host-1", "trusted"),
            ("silent", "timeout"),
        ]
        assert all(datetime.datetime.fromisoformat(one["vtime"]).tzinfo for one in hosts)

    def test_a_younger_verdict_is_given_at_once(self, server: Server, agent: Agent) -> None:
        server.choose_good_boot()
        agent.answer(agent.challenge())
        message = {"hosts": "host-1", "timeThreshold": "60000"}
        answer = server.call("POST", POLL, message, token=server.token("viewer"))
        assert answer.json()["hosts"][0]["trust_lvl"] == "trusted"

    @pytest.mark.parametrize("why", ["its life is over", "its reference values were withdrawn"])
    def test_a_verdict_is_not_given_for_longer_than_it_counts(
        self, server: Server, agent: Agent, why: str
    ) -> None:
        server.choose_good_boot()
        agent.answer(agent.challenge())
        if why == "its life is over":
            server.attestation._answers._options = Appraisal(lifetime=0.001)
        else:
            server.call("DELETE", "/v1/reference-values/golden", token=server.token("policy"))
        message = {"hosts": ["host-1"], "timeThreshold": 3_600_000}
        answer = server.call("POST", POLL, message, token=server.token("viewer"))
        expected = "timeout" if why == "its life is over" else "unknown"
        assert answer.json()["hosts"][0]["trust_lvl"] == expected

    def test_evidence_asked_for_earlier_is_not_fresh(self, server: Server, agent: Agent) -> None:
        server.choose_good_boot()
        early = agent.challenge()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            polled = pool.submit(
                server.call, "POST", POLL, {"hosts": ["host-1"]}, token=server.token("viewer")
            )
            deadline = time.monotonic() + 5
            while not server.waiters("host-1") and time.monotonic() < deadline:
                time.sleep(0.01)
            agent.answer(early)
            assert polled.result().json()["hosts"][0]["trust_lvl"] == "timeout"

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "x" * 255,
            "x" * 5000,
            "\ud800",
            "a b",
            "nul\0",
            "-",
            "\u00fc",
            "' OR 1=1",
            "fe80::1",
            "A" * 200,
        ],
    )
    @pytest.mark.each_database
    def test_what_cannot_be_a_host_is_unknown_and_hurts_no_other(
        self, server: Server, agent: Agent, name: str
    ) -> None:
        server.choose_good_boot()
        agent.answer(agent.challenge())
        message = {"hosts": [name, "host-1"], "timeThreshold": 60000}
        hosts = server.call("POST", POLL, message, token=server.token("viewer")).json()["hosts"]
        assert [(one["host_name"], one["trust_lvl"]) for one in hosts] == [
            (name, "unknown"),
            ("host-1", "trusted"),
        ]

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b'{"hosts":]}', id="oVirt without hosts"),
            pytest.param(b"", id="empty"),
            pytest.param(b"[]", id="array"),
            pytest.param(b'{"hosts":[]}', id="no host"),
            pytest.param(b'{"hosts":[1]}', id="number"),
            pytest.param(b'{"hosts":["x"],"PCRmask":"zz"}', id="mask"),
            pytest.param(b'{"a":' * 100_000, id="deep"),
            pytest.param(b'{"hosts":["x"],"timeThreshold":-1}', id="negative"),
            pytest.param(b'{"hosts":["x"],"timeThreshold":NaN}', id="NaN"),
            pytest.param(b"\xff\xfe", id="binary"),
        ],
    )
    def test_malformed_questions_get_a_clear_answer(self, server: Server, body: bytes) -> None:
        answer = server.call("POST", POLL, body, token=server.token("viewer"))
        assert answer.status_code == 400
        assert "PollHosts request" in answer.json()["error_message"]

    def test_a_question_that_is_too_long_is_answered_before_it_is_read(
        self, server: Server
    ) -> None:
        head = f"POST {POLL} HTTP/1.1\r\nHost: x\r\nX-Auth-Blob: {server.token('viewer')}\r\n"
        answer = server.send(f"{head}Content-Length: 104857600\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"error_code": 413' in answer

    @pytest.mark.each_database
    def test_ten_thousand_names_are_answered(self, server: Server, agent: Agent) -> None:
        server.choose_good_boot()
        agent.answer(agent.challenge())
        message = {
            "hosts": [*(f"fe80::{number:x}" for number in range(9999)), "host-1"],
            "timeThreshold": 60_000,
        }
        hosts = server.call("POST", POLL, message, token=server.token("viewer")).json()["hosts"]
        assert (len(hosts), hosts[0]["trust_lvl"], hosts[-1]["trust_lvl"]) == (
            10_000,
            "unknown",
            "trusted",
        )

    def test_tells_the_values_that_were_asked_for_and_proven(
        self, server: Server, agent: Agent
    ) -> None:
        server.choose_good_boot()
        agent.answer(agent.challenge())
        message = {"hosts": ["HOST-1", "nobody"], "timeThreshold": 60_000, "PCRmask": "020001"}
        one, nobody = server.call("POST", POLL, message, token=server.token("viewer")).json()[
            "hosts"
        ]
        assert one["pcr_values"] == [{"number": "17", "value": agent.tpm.pcrs[17].hex()}]
        assert "pcr_values" not in nobody

    def test_a_fault_of_the_server_has_its_own_form(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object) -> None:
            raise errors.Unavailable("the store", "gone")

        monkeypatch.setattr(server.attestation, "results", fail)
        answer = server.call("POST", POLL, {"hosts": ["x"]}, token=server.token("viewer"))
        assert (answer.status_code, answer.json()["name"]) == (503, "AttestationServersFault")


class TestOtherQuestions:
    TRUST = "/AttestationService/resources/hosts/trust"

    def ask(self, server: Server, name: str) -> requests.Response:
        return server.call(
            "GET", self.TRUST, params={"hostName": name}, token=server.token("viewer")
        )

    @pytest.mark.parametrize("good", [True, False])
    def test_trust_of_one_host_is_of_its_whole_boot(
        self, server: Server, agent: Agent, good: bool
    ) -> None:
        server.choose_good_boot()
        if not good:
            agent.tpm.never_launch()
        agent.answer(agent.challenge())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.ask, server, "Host-1")
            agent.answer(agent.challenge())
            answer = asked.result()
        assert answer.json() == {
            "hostname": "Host-1",
            "trust": {"bios": good, "vmm": good, "location": False},
        }

    def test_who_is_not_judged_has_an_error_of_2_x(self, server: Server, agent: Agent) -> None:
        expected = {
            "nobody": "AS_HOST_NOT_FOUND",
            "": "AS_HOST_NOT_FOUND",
            "host-1": "AS_HOST_COMMUNICATION_ERROR",
        }
        answers = {name: self.ask(server, name) for name in expected}
        assert {name: answer.json()["error_code"] for name, answer in answers.items()} == expected
        assert {answer.status_code for answer in answers.values()} == {400}

    def test_the_version_is_that_of_1_0(self, server: Server) -> None:
        answer = server.call(
            "GET", "/OpenAttestationWebServices/V1.0/Version", token=server.token("viewer")
        )
        assert (answer.text, answer.headers["Content-Type"]) == ("SDKversion : v1.0", "text/plain")

    @pytest.mark.parametrize(
        "path",
        [
            "/AttestationService/resources/PostHosts",
            "/OpenAttestationWebServices/V1.0/PostHosts",
            "/OpenAttestationManifestWebServices/V1.0/PCR",
            "/WLMService/resources/analysisTypes",
        ],
    )
    def test_what_is_not_offered_is_said_in_its_own_form(self, server: Server, path: str) -> None:
        answer = server.call("POST", path, {"hosts": ["x"]})
        assert (answer.status_code, answer.json()["error_code"]) == (404, 404)


@pytest.mark.parametrize("path", ["/v1/evidence", "/v1/challenge"])
@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"\0" * 1000, b'{"version":1}'])
def test_garbage_from_an_enrolled_agent_is_its_own_fault(
    agent: Agent, path: str, body: bytes
) -> None:
    agent.challenge()
    answer = agent.server.call("POST", path, body, cert=agent.certificate)
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidMessage")


@pytest.mark.parametrize("path", ["/v1/hosts", "/v1/results", "/v1/evidence", POLL, "/v1/nowhere"])
def test_a_stranger_is_answered_before_his_body_is_read(server: Server, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    status = server.send(f"{head}Content-Length: 60000\r\n\r\n".encode()).split(b" ")[1]
    assert status == (b"404" if path == "/v1/nowhere" else b"401")


def test_half_a_character_is_a_fault_of_the_asker(server: Server) -> None:
    message = b'{"hosts":["\\ud800"],"wait_ms":0}'
    assert (
        server.call("POST", "/v1/results", message, token=server.token("viewer")).status_code == 400
    )


@pytest.mark.each_database
def test_results_tell_age_findings_and_boot(server: Server, agent: Agent) -> None:
    server.choose_good_boot()
    agent.answer(agent.challenge())
    message = {"hosts": ["host-1", "nobody"], "max_age_ms": 60_000, "wait_ms": 0}
    one, nobody = server.call("POST", "/v1/results", message, token=server.token("viewer")).json()[
        "hosts"
    ]
    assert (one["level"], one["boot_id"], one["lifetime_ms"]) == (
        Level.TRUSTED.value,
        agent.tpm.boot_id,
        600_000,
    )
    assert 0 <= one["age_ms"] < 10_000
    assert (nobody["level"], nobody["age_ms"], nobody["findings"][0]["code"]) == (
        "unknown",
        None,
        "not_enrolled",
    )


def test_a_message_survives_its_codec(agent: Agent) -> None:
    challenge = agent.challenge()
    assert challenge is not None
    assert len(challenge.nonce) == evidence.NONCE_SIZE
    assert json_fields.encode_blob(challenge.nonce) == evidence.encode_challenge(challenge)["nonce"]


@pytest.mark.parametrize("path", ["/v1/enrolment/tokens", f"{SETS}/%00", f"{SETS}/%00/add"])
@pytest.mark.each_database
def test_nul_is_refused_at_the_door(server: Server, path: str) -> None:
    method = "DELETE" if path.endswith("%00") else "POST"
    token = server.token("enrolment" if "tokens" in path else "policy")
    assert (
        server.call(method, path, {"host": "host-1", "host_id": "\0"}, token=token).status_code
        == 400
    )
