# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whatever an attestation server answers, nothing odd becomes trusted. A real HTTPS server, on port 0."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import sources
from ovirt_tcp_plugin.broker.settings import Verifier
from ovirt_tcp_plugin.messages import oat, result
from ovirt_tcp_plugin.messages.result import AttestationResult, Finding, Level
from ovirt_tcp_plugin.verifier.authority import Authority, write_key

NOW = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.timezone.utc)
TOKEN = "of the broker"
Body = Callable[[list[str]], object]


class StillClock:
    """Moves by a fixed step at every look: a question takes that long."""

    boot_id = "00000000-0000-0000-0000-000000000001"

    def __init__(self, step_ms: int = 100) -> None:
        self.ms, self.step_ms = 1_000_000, step_ms

    def now_ms(self) -> int:
        self.ms += self.step_ms
        return self.ms

    def wall_ms(self) -> int:
        return 0


@dataclasses.dataclass
class Server:
    """What it answers is set by the test; what it was asked is kept."""

    url: str = ""
    status: int = 200
    body: Body = lambda names: {"hosts": []}
    date: str = email.utils.format_datetime(NOW, usegmt=True)
    refuse: Callable[[list[str]], bool] = lambda names: False
    drip_s: float = 0
    over: threading.Event = dataclasses.field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    headers: list[Mapping[str, str]] = dataclasses.field(default_factory=list)
    paths: list[str] = dataclasses.field(default_factory=list)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate, key = Authority.create(directory, now).issue_server(["127.0.0.1", "localhost"], now)
    (directory / "server.pem").write_bytes(certificate)
    write_key(directory / "server.key", key)
    (directory / "token").write_text(TOKEN + "\n", encoding="ascii")
    return directory


@pytest.fixture
def server(pki: Path) -> Iterator[Server]:
    behaviour = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            behaviour.asked.append(message)
            behaviour.headers.append(self.headers)
            behaviour.paths.append(self.path)
            status = 500 if behaviour.refuse(message["hosts"]) else behaviour.status
            content = behaviour.body(message["hosts"])
            sent = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            if behaviour.date:
                self.send_header("Date", behaviour.date)
            self.end_headers()
            if not behaviour.drip_s:
                self.wfile.write(sent)
            for byte in sent if behaviour.drip_s else b"":
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return
                if behaviour.over.wait(behaviour.drip_s):
                    return

        def log_message(self, *_: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    behaviour.url = f"https://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield behaviour
    behaviour.over.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def source(pki: Path, kind: str, *urls: str, **changes: Any) -> sources.Source:
    """Return the source of a configuration, on a clock of the test's own."""
    given = {"ca_file": pki / "ca.pem", "token_file": pki / "token", "deadline_s": 6.0, **changes}
    options = Verifier(urls=urls, kind=kind, **given)
    return sources.make(options, StillClock())  # type: ignore[arg-type]


def good(name: str, **changes: Any) -> dict[str, Any]:
    members = {"level": Level.TRUSTED, "age_ms": 50, "lifetime_ms": 600_000, "boot_id": "boot", **changes}
    return result.encode(AttestationResult(name, **members))


class TestOvirtTcp:
    def test_asks_for_evidence_from_now_on_with_its_token(self, pki: Path, server: Server) -> None:
        source(pki, "ovirt-tcp", server.url).ask(["h1", "h2"])
        assert server.asked == [{"hosts": ["h1", "h2"], "max_age_ms": None, "wait_ms": 5000}]
        assert server.headers[0]["Authorization"] == f"Bearer {TOKEN}"
        assert server.paths == ["/v1/results"]

    def test_a_good_answer_is_dated_from_the_question(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [good(name) for name in names]}
        answer = source(pki, "ovirt-tcp", server.url).ask(["h1"])["h1"]
        assert (answer.level, answer.sent_ms, answer.age_ms) == (Level.TRUSTED, 1_000_100, 50)
        assert (answer.fresh, answer.lifetime_ms, answer.boot_id) == (True, 600_000, "boot")

    def test_evidence_older_than_the_question_is_not_fresh(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [good("h1", age_ms=5000)]}
        assert not source(pki, "ovirt-tcp", server.url).ask(["h1"])["h1"].fresh

    def test_the_first_finding_is_the_reason(self, pki: Path, server: Server) -> None:
        finding = Finding(8, "pcr_differs", "PCR 17 is not the known one")
        server.body = lambda names: {"hosts": [good("h1", level=Level.UNTRUSTED, findings=(finding,))]}
        answer = source(pki, "ovirt-tcp", server.url).ask(["h1"])["h1"]
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
    def test_an_odd_host_is_not_trusted(self, pki: Path, server: Server, hosts: list[object]) -> None:
        server.body = lambda names: {"hosts": hosts}
        assert source(pki, "ovirt-tcp", server.url).ask(["h1"])["h1"].level is not Level.TRUSTED

    def test_one_odd_host_does_not_hurt_another(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [{**good("h1"), "level": 1}, good("h2")]}
        answers = source(pki, "ovirt-tcp", server.url).ask(["h1", "h2"])
        assert (answers["h1"].level, answers["h2"].level) == (Level.UNKNOWN, Level.TRUSTED)

    @pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"hosts": {}}', b'{"hosts": NaN}', b"\xff", b"[" * 5000])
    def test_garbage_is_no_answer(self, pki: Path, server: Server, content: bytes) -> None:
        server.body = lambda names: content
        with pytest.raises(errors.Unavailable):
            source(pki, "ovirt-tcp", server.url).ask(["h1"])

    @pytest.mark.parametrize("status", [201, 302, 400, 401, 403, 404, 500, 502, 503])
    def test_any_status_but_200_is_no_answer(self, pki: Path, server: Server, status: int) -> None:
        server.status = status
        server.body = lambda names: {"hosts": [good("h1")]}
        with pytest.raises(errors.Unavailable):
            source(pki, "ovirt-tcp", server.url).ask(["h1"])

    def test_a_certificate_of_another_authority_is_no_answer(self, pki: Path, server: Server, tmp_path: Path) -> None:
        Authority.create(tmp_path, datetime.datetime.now(datetime.timezone.utc))
        server.body = lambda names: {"hosts": [good("h1")]}
        with pytest.raises(errors.Unavailable, match="(?i)certificate"):
            source(pki, "ovirt-tcp", server.url, ca_file=tmp_path / "ca.pem").ask(["h1"])
        assert server.asked == []

    def test_the_next_address_is_asked_when_one_is_dead(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [good("h1")]}
        answers = source(pki, "ovirt-tcp", "https://127.0.0.1:1", server.url).ask(["h1"])
        assert answers["h1"].level is Level.TRUSTED

    def test_a_server_that_sends_byte_after_byte_is_cut_off(self, pki: Path, server: Server) -> None:
        server.drip_s = 0.1
        server.body = lambda names: {"hosts": [good("h1")]}
        slow = source(pki, "ovirt-tcp", server.url, connect_timeout_s=0.3, wait_s=0.2)
        began = time.monotonic()
        with pytest.raises(errors.Unavailable, match="within"):
            slow.ask(["h1"])
        assert time.monotonic() - began < 5

    def test_an_endless_answer_is_cut_off(self, pki: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(oat, "MAX_ANSWER_SIZE", 1000)
        server.body = lambda names: b" " * 100_000
        with pytest.raises(errors.Unavailable, match="longer than 1000 bytes"):
            source(pki, "ovirt-tcp", server.url).ask(["h1"])

    def test_nobody_there_is_unavailable(self, pki: Path) -> None:
        with pytest.raises(errors.Unavailable):
            source(pki, "ovirt-tcp", "https://127.0.0.1:1", "https://127.0.0.1:2").ask(["h1"])


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
    def test_asks_where_that_release_answers(self, pki: Path, server: Server, kind: str, path: str) -> None:
        source(pki, kind, server.url, auth_blob="blob").ask(["h1"])
        assert (server.paths, server.headers[0]["x-auth-blob"]) == ([path], "blob")
        assert server.asked[0]["hosts"] == ["h1"]
        assert "timeThreshold" not in server.asked[0]

    def test_age_is_date_minus_vtime_and_never_too_young(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [oat_host("h1", age_s=3.25)]}
        answer = source(pki, "oat-1.5", server.url).ask(["h1"])["h1"]
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
        self, pki: Path, server: Server, level: str, age_s: float, date: str | None, vtime: object
    ) -> None:
        changes = {} if vtime is None else {"vtime": vtime}
        server.body = lambda names: {"hosts": [oat_host("h1", level, age_s, **changes)]}
        server.date = server.date if date is None else date
        answer = source(pki, "oat-1.5", server.url).ask(["h1"])["h1"]
        assert answer.level is Level.UNKNOWN or answer.age_ms is None
        assert not answer.fresh

    @pytest.mark.parametrize("level", ["pending", "uninitialized", "", "trusted ", "TRUE", "unknown", "timeout"])
    def test_every_other_level_is_not_trusted(self, pki: Path, server: Server, level: str) -> None:
        server.body = lambda names: {"hosts": [oat_host("h1", level)]}
        answer = source(pki, "oat-1.5", server.url).ask(["h1"])["h1"]
        assert answer.level in (Level.UNKNOWN, Level.TIMEOUT)
        assert answer.reason

    def test_a_host_left_out_or_misnamed_is_unknown(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [oat_host("h3")]}
        answers = source(pki, "oat-1.5", server.url).ask(["h1", "h2"])
        assert {answer.level for answer in answers.values()} == {Level.UNKNOWN}

    def test_a_host_named_twice_is_not_trusted(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [oat_host("h1"), oat_host("h1", "untrusted")]}
        assert source(pki, "oat-1.5", server.url).ask(["h1"])["h1"].level is not Level.TRUSTED

    def test_one_host_as_an_object_is_understood(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": oat_host("h1")}
        assert source(pki, "oat-1.5", server.url).ask(["h1"])["h1"].level is Level.TRUSTED

    @pytest.mark.parametrize("name", ["fd00::1", "[fd00::1]", "h" * 51, "a#b", "a&b", "a+b", 'a"b', "a'b"])
    def test_names_that_oat_1_cannot_take_are_not_sent(self, pki: Path, server: Server, name: str) -> None:
        server.body = lambda names: {"hosts": [oat_host(one) for one in names]}
        answers = source(pki, "oat-1.5", server.url).ask([name, "h1"])
        assert (answers[name].level, answers["h1"].level) == (Level.UNKNOWN, Level.TRUSTED)
        assert server.asked[0]["hosts"] == ["h1"]

    def test_oat_2_takes_them(self, pki: Path, server: Server) -> None:
        server.body = lambda names: {"hosts": [oat_host(one) for one in names]}
        assert source(pki, "oat-2", server.url).ask(["fd00::1"])["fd00::1"].level is Level.TRUSTED

    def test_a_refused_batch_is_split_until_the_bad_name_stands_alone(self, pki: Path, server: Server) -> None:
        server.refuse = lambda names: "bad" in names
        server.body = lambda names: {"hosts": [oat_host(one) for one in names]}
        names = [f"h{n}" for n in range(19)]
        answers = source(pki, "oat-1.5", server.url).ask([*names[:7], "bad", *names[7:]])
        assert answers["bad"].level is Level.UNKNOWN
        assert all(answers[name].level is Level.TRUSTED for name in names)
        assert len(server.asked) <= 11

    @pytest.mark.parametrize("status", [400, 500])
    def test_a_server_that_refuses_everything_is_no_server(self, pki: Path, server: Server, status: int) -> None:
        """If it counted as answering, the silent hosts would leave the wall one by one."""
        server.status = status
        with pytest.raises(errors.Unavailable):
            source(pki, "oat-1.5", server.url).ask([f"h{n}" for n in range(20)])

    @pytest.mark.parametrize("status", [302, 401, 404, 502, 503])
    def test_trouble_of_the_servers_own_is_no_answer(self, pki: Path, server: Server, status: int) -> None:
        server.status = status
        with pytest.raises(errors.Unavailable):
            source(pki, "oat-1.5", server.url).ask([f"h{n}" for n in range(20)])
        assert len(server.asked) == 1

    @pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"hosts": 3}'])
    def test_garbage_is_no_answer(self, pki: Path, server: Server, content: bytes) -> None:
        server.body = lambda names: content
        with pytest.raises(errors.Unavailable):
            source(pki, "oat-1.5", server.url).ask(["h1", "h2"])
