# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Three things that the SDK mixes up, as a real engine answers them.

A refused log-in, a missing permit, and no answer at all.
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.engine.sdk import (
    LOGIN_PAUSES_MS,
    LOGIN_PERMIT_MISSING,
    LOGIN_REFUSED,
    PERMIT_MISSING,
    Access,
    LogInGate,
    Sdk,
    password_of,
)
from tests.fake_clock import FakeClock

XML = "application/xml;charset=UTF-8"
HTML = "text/html;charset=UTF-8"
JSON = "application/json"
Reply = tuple[int, str, str]

TOKEN: Reply = (200, JSON, '{"access_token": "t", "scope": "ovirt-app-api"}')
HOSTS: Reply = (200, XML, "<hosts/>")


def sso_refusal(code: str, text: str) -> Reply:
    """What the engine's SSO answers for the scope of the API."""
    return 400, JSON, json.dumps({"error_code": code, "error": text})


def page(status: int, text: str) -> Reply:
    return status, HTML, f"<html><head><title>Error</title></head><body>{text}</body></html>"


def fault(status: int, detail: str) -> Reply:
    text = f"<fault><detail>{detail}</detail><reason>Operation Failed</reason></fault>"
    return status, XML, text


WRONG_PASSWORD = sso_refusal(
    "access_denied",
    "Cannot authenticate user 'broker@internal': Unable to log in. Verify your login information..",
)
LOCKED = sso_refusal(
    "access_denied",
    "Cannot authenticate user 'broker@internal': the user account is disabled or locked..",
)
NO_LOGIN_PERMIT = page(
    401, "The user broker@internal-authz with profile [internal] is not authorized to perform login"
)
APACHE_503 = page(503, "<h1>Service Unavailable</h1><p>The server is temporarily unable.</p>")


class ScriptedEngine:
    """Answers every log-in with `token` and everything else with `api`, and counts both.

    Attributes:
        authorization: the header of the last call.
    """

    def __init__(self, pki: Path) -> None:
        self.token = TOKEN
        self.api = HOSTS
        self.logins = 0
        self.calls = 0
        self.authorization = ""
        lock = threading.Lock()
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    if "/sso/" in self.path:
                        script.logins += 1
                        reply = script.token
                    else:
                        script.calls += 1
                        script.authorization = self.headers["Authorization"]
                        reply = script.api
                status, kind, body = reply
                self.send_response_only(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = _answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "engine.pem", pki / "engine.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/ovirt-engine/api"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def engine(site_pki: Path) -> Iterator[ScriptedEngine]:
    running = ScriptedEngine(site_pki)
    yield running
    running.stop()


@pytest.fixture
def access(engine: ScriptedEngine, site_pki: Path, tmp_path: Path) -> Access:
    file = tmp_path / "engine.password"
    file.write_text("secret\n")
    ca_file = site_pki / "ca.pem"
    return Access(engine.url, "broker@internal", lambda: password_of(file), ca_file, 5.0, file)


@pytest.fixture
def sdk(access: Access) -> Sdk:
    return Sdk(access)


def list_hosts(sdk: Sdk) -> int:
    return sdk.call("list hosts", lambda system: len(system.hosts_service().list()))


def refusal_of(sdk: Sdk) -> errors.AccessRefused:
    with pytest.raises(errors.AccessRefused) as caught:
        list_hosts(sdk)
    return caught.value


class TestRefusedLogIn:
    def test_a_wrong_password_names_the_file_and_the_way_to_unlock(
        self, engine: ScriptedEngine, sdk: Sdk, access: Access
    ) -> None:
        engine.token = WRONG_PASSWORD
        refusal = refusal_of(sdk)
        assert refusal.code == LOGIN_REFUSED
        assert "refuses the log-in of broker@internal: Cannot authenticate" in refusal.reason
        assert str(access.password_file) in refusal.next_step
        assert "ovirt-aaa-jdbc-tool user unlock broker" in refusal.next_step
        assert "secret" not in str(refusal)

    @pytest.mark.parametrize("reply", [WRONG_PASSWORD, LOCKED, sso_refusal("invalid_grant", "no")])
    def test_a_refused_password_is_sent_once_until_its_file_changes(
        self, engine: ScriptedEngine, sdk: Sdk, access: Access, reply: Reply
    ) -> None:
        engine.token = reply
        for _ in range(5):
            assert refusal_of(sdk).code == LOGIN_REFUSED
        assert engine.logins == 1
        engine.token = TOKEN
        refusal_of(sdk)
        assert engine.logins == 1
        assert access.password_file is not None
        os.utime(access.password_file, ns=(1, 1))
        assert list_hosts(sdk) == 0
        assert engine.logins == 2

    def test_a_refusal_that_passes_by_itself_keeps_nobody_out_for_good(
        self, engine: ScriptedEngine, access: Access
    ) -> None:
        """The engine says the same of a wrong password and of a directory that failed."""
        clock = FakeClock()
        sdk = Sdk(dataclasses.replace(access, gate=LogInGate(clock.now_ms)))
        engine.token = WRONG_PASSWORD
        refusal_of(sdk)
        engine.token = TOKEN
        clock.pass_ms(LOGIN_PAUSES_MS[0] - 1)
        refusal_of(sdk)
        clock.pass_ms(1)
        assert list_hosts(sdk) == 0
        assert engine.logins == 2

    def test_a_password_that_stays_wrong_is_sent_four_times_and_never_locks_the_account(
        self, engine: ScriptedEngine, access: Access
    ) -> None:
        clock = FakeClock()
        sdk = Sdk(dataclasses.replace(access, gate=LogInGate(clock.now_ms)))
        engine.token = WRONG_PASSWORD
        for _ in range(24 * 60):
            refusal_of(sdk)
            clock.pass_ms(60_000)
        assert engine.logins == 4

    def test_a_refused_password_is_sent_once_by_all_threads_that_share_the_access(
        self, engine: ScriptedEngine, access: Access
    ) -> None:
        engine.token = WRONG_PASSWORD
        sdks = [Sdk(access) for _ in range(3)]
        with ThreadPoolExecutor(12) as threads:
            codes = list(threads.map(lambda n: refusal_of(sdks[n % 3]).code, range(24)))
        assert set(codes) == {LOGIN_REFUSED}
        assert engine.logins == 1

    def test_a_password_changed_at_the_engine_while_connected_is_sent_once(
        self, engine: ScriptedEngine, sdk: Sdk
    ) -> None:
        assert list_hosts(sdk) == 0
        engine.token = WRONG_PASSWORD
        engine.api = page(401, "invalid_token")
        for _ in range(3):
            assert refusal_of(sdk).code == LOGIN_REFUSED
        assert engine.logins == 2

    def test_it_is_logged_once(
        self, engine: ScriptedEngine, sdk: Sdk, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine.token = WRONG_PASSWORD
        for _ in range(3):
            refusal_of(sdk)
        assert [record.levelname for record in caplog.records] == ["ERROR"]

    def test_a_typed_password_is_told_how_to_try_again(
        self, engine: ScriptedEngine, site_pki: Path
    ) -> None:
        engine.token = WRONG_PASSWORD
        access = Access(engine.url, "admin@internal", lambda: "typo", site_pki / "ca.pem", 5.0)
        step = refusal_of(Sdk(access)).next_step
        assert "try again with the right password" in step
        assert "user unlock admin" in step

    @pytest.mark.parametrize(
        "reply",
        [
            sso_refusal("server_error", "the database is away"),
            sso_refusal("access_denied", "Unable to log in because servers cannot be reached."),
            APACHE_503,
            page(404, "Not Found"),
        ],
    )
    def test_what_says_nothing_about_the_password_is_an_engine_that_is_down_and_tried_again(
        self, engine: ScriptedEngine, sdk: Sdk, reply: Reply
    ) -> None:
        engine.token = reply
        for _ in range(2):
            with pytest.raises(errors.Unavailable) as caught:
                list_hosts(sdk)
            assert not isinstance(caught.value, errors.AccessRefused)
        engine.token = TOKEN
        assert list_hosts(sdk) == 0
        assert engine.logins == 3


class TestMissingPermit:
    def test_a_user_without_the_permit_login_is_sent_to_setup(
        self, engine: ScriptedEngine, sdk: Sdk
    ) -> None:
        engine.api = NO_LOGIN_PERMIT
        refusal = refusal_of(sdk)
        assert refusal.code == LOGIN_PERMIT_MISSING
        assert "does not let broker@internal log in" in refusal.reason
        assert "ovirt-tcp setup" in refusal.next_step

    def test_the_permit_counts_as_soon_as_the_user_has_it(
        self, engine: ScriptedEngine, sdk: Sdk
    ) -> None:
        engine.api = NO_LOGIN_PERMIT
        refusal_of(sdk)
        engine.api = HOSTS
        assert list_hosts(sdk) == 0

    @pytest.mark.parametrize("status", [401, 403])
    def test_an_action_that_is_not_allowed_is_named(
        self, engine: ScriptedEngine, sdk: Sdk, status: int
    ) -> None:
        engine.api = fault(status, "[User is not authorized to perform this action.]")
        refusal = refusal_of(sdk)
        assert refusal.code == PERMIT_MISSING
        assert "(list hosts)" in refusal.reason
        assert "not authorized to perform this action" in refusal.reason

    def test_a_session_that_is_not_taken_says_why(self, engine: ScriptedEngine, sdk: Sdk) -> None:
        engine.api = page(401, "the maximum number of allowed sessions 100 is exceeded")
        refusal = refusal_of(sdk)
        assert refusal.code == LOGIN_REFUSED
        assert "allowed sessions 100 is exceeded" in refusal.reason
        engine.api = HOSTS
        assert list_hosts(sdk) == 0


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def dead_proxy(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Name a proxy on a port where nobody listens, and log-ins of somebody else."""
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
            monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password stolen\n")
        monkeypatch.setenv("HOME", str(tmp_path))

    def test_it_steers_no_call(self, engine: ScriptedEngine, sdk: Sdk) -> None:
        assert list_hosts(sdk) == 0
        assert (engine.logins, engine.calls) == (1, 1)
        assert engine.authorization == "Bearer t"

    def test_it_steers_no_call_after_a_session_has_ended(
        self, engine: ScriptedEngine, sdk: Sdk
    ) -> None:
        list_hosts(sdk)
        engine.api = page(401, "invalid_token")
        refusal_of(sdk)
        assert (engine.logins, engine.calls) == (2, 3)


class TestDeadEngine:
    @pytest.mark.parametrize(
        "reply", [APACHE_503, page(404, "Not Found"), (502, "text/plain", ""), (200, HTML, "hm")]
    )
    def test_a_page_of_something_in_front_is_no_answer_of_the_engine(
        self, engine: ScriptedEngine, sdk: Sdk, reply: Reply
    ) -> None:
        engine.api = reply
        with pytest.raises(errors.Unavailable) as caught:
            list_hosts(sdk)
        assert not isinstance(caught.value, errors.AccessRefused)
        assert str(reply[0]) in str(caught.value)

    def test_nobody_there_is_no_refusal(self, engine: ScriptedEngine, sdk: Sdk) -> None:
        engine.stop()
        with pytest.raises(errors.Unavailable) as caught:
            list_hosts(sdk)
        assert not isinstance(caught.value, errors.AccessRefused)
