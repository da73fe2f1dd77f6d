# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whatever an OpenAttestation server answers, nothing odd becomes trusted."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.verifiers import choose
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.odd_server import NOW, Server, options, source


def oat_host(name: str, level: str = "trusted", age_s: float = 3, **changes: Any) -> dict[str, Any]:
    vtime = (NOW - datetime.timedelta(seconds=age_s)).isoformat(timespec="milliseconds")
    return {"host_name": name, "trust_lvl": level, "vtime": vtime, **changes}


class TestOat:
    @pytest.mark.parametrize(
        ("kind", "path"),
        [
            ("oat-1.0", "/OpenAttestationWebServices/V1.0/PollHosts"),
            ("oat-1.5", "/AttestationService/resources/PollHosts"),
            ("oat-2", "/AttestationService/resources/PollHosts"),
        ],
    )
    def test_asks_where_that_release_answers(
        self, site_pki: Path, server: Server, kind: str, path: str
    ) -> None:
        source(site_pki, kind, server.url, auth_blob="blob").ask(["h1"])
        assert (server.paths, server.headers[0]["x-auth-blob"]) == ([path], "blob")
        assert server.asked[0]["hosts"] == ["h1"]
        assert "timeThreshold" not in server.asked[0]

    def test_age_is_date_minus_vtime_and_never_too_young(
        self, site_pki: Path, server: Server
    ) -> None:
        server.body = lambda names: {"hosts": [oat_host("h1", age_s=3.25)]}
        answer = source(site_pki, "oat-1.5", server.url).ask(["h1"])["h1"]
        assert answer.level is Level.TRUSTED
        assert answer.age_ms is not None
        assert 3250 <= answer.age_ms <= 4250

    @pytest.mark.parametrize("level", ["trusted", "untrusted"])
    @pytest.mark.parametrize(
        ("age_s", "date", "vtime"),
        [
            pytest.param(-2.5, None, None, id="future"),
            pytest.param(3, "", None, id="no date"),
            pytest.param(3, "yesterday", None, id="date that is none"),
            pytest.param(3, None, "", id="vtime empty"),
            pytest.param(3, None, "Mon May  4 03:02:01 2026", id="vtime without zone"),
            pytest.param(3, None, 1777863721, id="vtime as a number"),
        ],
    )
    def test_without_an_age_nothing_is_known(
        self,
        site_pki: Path,
        server: Server,
        level: str,
        age_s: float,
        date: str | None,
        vtime: object,
    ) -> None:
        changes = {} if vtime is None else {"vtime": vtime}
        server.body = lambda names: {"hosts": [oat_host("h1", level, age_s, **changes)]}
        server.date = server.date if date is None else date
        answer = source(site_pki, "oat-1.5", server.url).ask(["h1"])["h1"]
        assert answer.level is Level.UNKNOWN or answer.age_ms is None
        assert not answer.fresh

    @pytest.mark.parametrize(
        "level", ["pending", "uninitialized", "", "trusted ", "TRUE", "unknown", "timeout"]
    )
    def test_every_other_level_is_not_trusted(
        self, site_pki: Path, server: Server, level: str
    ) -> None:
        server.body = lambda names: {"hosts": [oat_host("h1", level)]}
        answer = source(site_pki, "oat-1.5", server.url).ask(["h1"])["h1"]
        assert answer.level in (Level.UNKNOWN, Level.TIMEOUT)
        assert answer.reason

    def test_a_host_left_out_or_misnamed_is_unknown(self, site_pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [oat_host("h3")]}
        answers = source(site_pki, "oat-1.5", server.url).ask(["h1", "h2"])
        assert {answer.level for answer in answers.values()} == {Level.UNKNOWN}

    def test_a_host_named_twice_is_not_trusted(self, site_pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [oat_host("h1"), oat_host("h1", "untrusted")]}
        assert source(site_pki, "oat-1.5", server.url).ask(["h1"])["h1"].level is not Level.TRUSTED

    def test_one_host_as_an_object_is_understood(self, site_pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": oat_host("h1")}
        assert source(site_pki, "oat-1.5", server.url).ask(["h1"])["h1"].level is Level.TRUSTED

    @pytest.mark.parametrize(
        "name", ["fd00::1", "[fd00::1]", "h" * 51, "a#b", "a&b", "a+b", 'a"b', "a'b"]
    )
    def test_names_that_oat_1_cannot_take_are_not_sent(
        self, site_pki: Path, server: Server, name: str
    ) -> None:
        server.body = lambda names: {"hosts": [oat_host(one) for one in names]}
        answers = source(site_pki, "oat-1.5", server.url).ask([name, "h1"])
        assert (answers[name].level, answers["h1"].level) == (Level.UNKNOWN, Level.TRUSTED)
        assert server.asked[0]["hosts"] == ["h1"]

    def test_oat_2_takes_them(self, site_pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [oat_host(one) for one in names]}
        assert (
            source(site_pki, "oat-2", server.url).ask(["fd00::1"])["fd00::1"].level is Level.TRUSTED
        )

    def test_a_refused_batch_is_split_until_the_bad_name_stands_alone(
        self, site_pki: Path, server: Server
    ) -> None:
        server.refuse = lambda names: "bad" in names
        server.body = lambda names: {"hosts": [oat_host(one) for one in names]}
        names = [f"h{n}" for n in range(19)]
        answers = source(site_pki, "oat-1.5", server.url).ask([*names[:7], "bad", *names[7:]])
        assert answers["bad"].level is Level.UNKNOWN
        assert all(answers[name].level is Level.TRUSTED for name in names)
        assert len(server.asked) <= 11

    @pytest.mark.parametrize("status", [400, 500])
    def test_a_server_that_refuses_everything_is_no_server(
        self, site_pki: Path, server: Server, status: int
    ) -> None:
        """If it counted as answering, the silent hosts would leave the wall one by one."""
        server.status = status
        with pytest.raises(errors.Unavailable):
            source(site_pki, "oat-1.5", server.url).ask([f"h{n}" for n in range(20)])

    @pytest.mark.parametrize("status", [302, 401, 404, 502, 503])
    def test_trouble_of_the_servers_own_is_no_answer(
        self, site_pki: Path, server: Server, status: int
    ) -> None:
        server.status = status
        with pytest.raises(errors.Unavailable):
            source(site_pki, "oat-1.5", server.url).ask([f"h{n}" for n in range(20)])
        assert len(server.asked) == 1

    @pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"hosts": 3}'])
    def test_garbage_is_no_answer(self, site_pki: Path, server: Server, content: bytes) -> None:
        server.body = lambda names: content
        with pytest.raises(errors.Unavailable):
            source(site_pki, "oat-1.5", server.url).ask(["h1", "h2"])

    @pytest.mark.parametrize(
        ("status", "good"), [(200, True), (400, True), (500, True), (401, False), (404, False)]
    )
    def test_a_probe_asks_about_no_host_and_takes_a_refusal_for_an_answer(
        self, site_pki: Path, server: Server, status: int, good: bool
    ) -> None:
        server.status = status
        asked = options(site_pki, "oat-1.0", server.url, auth_blob="blob")
        probe = choose.probe(asked, server.url + "/")
        assert (probe.status, probe.good) == (status, good)
        assert server.asked == [{"hosts": [], "count": 0}]
        assert server.paths == ["/OpenAttestationWebServices/V1.0/PollHosts"]
        assert server.headers[0]["x-auth-blob"] == "blob"

    def test_a_probe_of_a_dead_server_is_no_answer(self, site_pki: Path) -> None:
        asked = options(site_pki, "oat-2", "https://127.0.0.1:1")
        with pytest.raises(errors.Unavailable):
            choose.probe(asked, asked.urls[0])
