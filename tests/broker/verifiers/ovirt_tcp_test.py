# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whatever our attestation server answers, nothing odd becomes trusted."""

from __future__ import annotations

import dataclasses
import datetime
import time
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.verifiers import choose
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import oat
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.authority import Authority
from tests.broker.odd_server import Server, good, options, source
from tests.site_pki import TOKEN


class TestOvirtTcp:
    def test_asks_for_evidence_from_now_on_with_its_token(
        self, site_pki: Path, server: Server
    ) -> None:
        source(site_pki, "ovirt-tcp", server.url).ask(["h1", "h2"])
        assert server.asked == [{"hosts": ["h1", "h2"], "max_age_ms": None, "wait_ms": 5000}]
        assert server.headers[0]["Authorization"] == f"Bearer {TOKEN}"
        assert server.paths == ["/v1/results"]

    def test_a_good_answer_is_dated_from_the_question(self, site_pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [good(name) for name in names]}
        answer = source(site_pki, "ovirt-tcp", server.url).ask(["h1"])["h1"]
        assert (answer.level, answer.sent_ms, answer.age_ms) == (Level.TRUSTED, 1_000_100, 50)
        assert (answer.fresh, answer.lifetime_ms, answer.boot_id) == (True, 600_000, "boot")

    def test_evidence_older_than_the_question_is_not_fresh(
        self, site_pki: Path, server: Server
    ) -> None:
        server.body = lambda names: {"hosts": [good("h1", age_ms=5000)]}
        assert not source(site_pki, "ovirt-tcp", server.url).ask(["h1"])["h1"].fresh

    def test_the_first_finding_is_the_reason(self, site_pki: Path, server: Server) -> None:
        finding = Finding(8, "pcr_differs", "PCR 17 is not the known one")
        server.body = lambda names: {
            "hosts": [good("h1", level=Level.UNTRUSTED, findings=(finding,))]
        }
        answer = source(site_pki, "ovirt-tcp", server.url).ask(["h1"])["h1"]
        assert (answer.level, answer.code) == (Level.UNTRUSTED, "pcr_differs")
        assert answer.reason.startswith("PCR 17 is not the known one")

    @pytest.mark.parametrize(
        "hosts",
        [
            pytest.param([], id="left out"),
            pytest.param([good("other")], id="another host"),
            pytest.param([{**good("h1"), "level": "TRUSTED"}], id="level in capitals"),
            pytest.param([{**good("h1"), "level": "pending"}], id="pending"),
            pytest.param([{**good("h1"), "level": True}], id="level true"),
            pytest.param([{**good("h1"), "age_ms": -1}], id="negative age"),
            pytest.param([{**good("h1"), "age_ms": "0"}], id="age as text"),
            pytest.param([{**good("h1"), "lifetime_ms": None}], id="no lifetime"),
            pytest.param([{**good("h1"), "host_name": ["h1"]}], id="name as a list"),
            pytest.param([None, "h1"], id="no objects"),
            pytest.param([good("h1"), good("h1", level=Level.UNTRUSTED)], id="named twice"),
        ],
    )
    def test_an_odd_host_is_not_trusted(
        self, site_pki: Path, server: Server, hosts: list[object]
    ) -> None:
        server.body = lambda names: {"hosts": hosts}
        assert (
            source(site_pki, "ovirt-tcp", server.url).ask(["h1"])["h1"].level is not Level.TRUSTED
        )

    def test_one_odd_host_does_not_hurt_another(self, site_pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [{**good("h1"), "level": 1}, good("h2")]}
        answers = source(site_pki, "ovirt-tcp", server.url).ask(["h1", "h2"])
        assert (answers["h1"].level, answers["h2"].level) == (Level.UNKNOWN, Level.TRUSTED)

    @pytest.mark.parametrize(
        "content",
        [b"", b"<html>", b"[]", b'{"hosts": {}}', b'{"hosts": NaN}', b"\xff", b"[" * 5000],
    )
    def test_garbage_is_no_answer(self, site_pki: Path, server: Server, content: bytes) -> None:
        server.body = lambda names: content
        with pytest.raises(errors.Unavailable):
            source(site_pki, "ovirt-tcp", server.url).ask(["h1"])

    @pytest.mark.parametrize("status", [201, 302, 400, 401, 403, 404, 500, 502, 503])
    def test_any_status_but_200_is_no_answer(
        self, site_pki: Path, server: Server, status: int
    ) -> None:
        server.status = status
        server.body = lambda names: {"hosts": [good("h1")]}
        with pytest.raises(errors.Unavailable):
            source(site_pki, "ovirt-tcp", server.url).ask(["h1"])

    def test_a_certificate_of_another_authority_is_no_answer(
        self, site_pki: Path, server: Server, tmp_path: Path
    ) -> None:
        Authority.create(tmp_path, datetime.datetime.now(datetime.timezone.utc))
        server.body = lambda names: {"hosts": [good("h1")]}
        with pytest.raises(errors.Unavailable, match="(?i)certificate"):
            source(site_pki, "ovirt-tcp", server.url, ca_file=tmp_path / "ca.pem").ask(["h1"])
        assert server.asked == []

    def test_the_next_address_is_asked_when_one_is_dead(
        self, site_pki: Path, server: Server
    ) -> None:
        server.body = lambda names: {"hosts": [good("h1")]}
        answers = source(site_pki, "ovirt-tcp", "https://127.0.0.1:1", server.url).ask(["h1"])
        assert answers["h1"].level is Level.TRUSTED

    def test_a_server_that_sends_byte_after_byte_is_cut_off(
        self, site_pki: Path, server: Server
    ) -> None:
        server.drip_s = 0.1
        server.body = lambda names: {"hosts": [good("h1")]}
        slow = source(site_pki, "ovirt-tcp", server.url, connect_timeout_s=0.3, wait_s=0.2)
        began = time.monotonic()
        with pytest.raises(errors.Unavailable, match="within"):
            slow.ask(["h1"])
        assert time.monotonic() - began < 5

    def test_an_endless_answer_is_cut_off(
        self, site_pki: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oat, "MAX_ANSWER_SIZE", 1000)
        server.body = lambda names: b" " * 100_000
        with pytest.raises(errors.Unavailable, match="longer than 1000 bytes"):
            source(site_pki, "ovirt-tcp", server.url).ask(["h1"])

    def test_nobody_there_is_unavailable(self, site_pki: Path) -> None:
        with pytest.raises(errors.Unavailable):
            source(site_pki, "ovirt-tcp", "https://127.0.0.1:1", "https://127.0.0.1:2").ask(["h1"])

    @pytest.mark.parametrize(
        ("body", "rows"),
        [
            ({"hosts": [], "unreadable_rows": 3}, 3),
            ({"hosts": []}, 0),
            ({"hosts": [], "unreadable_rows": "x"}, 0),
            (b"rubbish", 0),
        ],
    )
    def test_a_probe_says_how_many_rows_the_server_cannot_read(
        self, site_pki: Path, server: Server, body: object, rows: int
    ) -> None:
        server.body = lambda names: body
        probe = choose.probe(options(site_pki, "ovirt-tcp", server.url), server.url)
        assert probe.unreadable_rows == rows

    @pytest.mark.parametrize(
        ("status", "good"), [(200, True), (401, False), (400, False), (500, False)]
    )
    def test_a_probe_asks_about_no_host(
        self, site_pki: Path, server: Server, status: int, good: bool
    ) -> None:
        server.status = status
        probe = choose.probe(options(site_pki, "ovirt-tcp", server.url), server.url)
        assert (probe.status, probe.good, probe.date) == (status, good, server.date)
        assert server.asked == [{"hosts": [], "max_age_ms": None, "wait_ms": 0}]
        assert server.headers[0]["Authorization"] == f"Bearer {TOKEN}"

    def test_a_token_that_cannot_be_read_is_a_fault_of_the_configuration(
        self, site_pki: Path, tmp_path: Path
    ) -> None:
        silent = dataclasses.replace(
            options(site_pki, "ovirt-tcp", "https://127.0.0.1:1"), token_file=tmp_path / "none"
        )
        with pytest.raises(errors.InvalidConfig, match="token cannot be read"):
            choose.probe(silent, silent.urls[0])
        with pytest.raises(errors.InvalidConfig, match="token cannot be read"):
            choose.make(silent, Clock())
