# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""No client writes lines of its own into the server's log, by any field that it controls."""

from __future__ import annotations

import io
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from ovirt_tcp_plugin.command import OneLine
from tests.forged_lines import FORGED, SEPARATORS
from tests.verifier.agent import Agent
from tests.verifier.live_server import POLL, Server

WLM = "/WLMService/resources"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a service would write to stderr."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(OneLine("%(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


class Client:
    """Calls each route with a text in each of its fields; what is answered does not matter."""

    def __init__(self, server: Server, agent: Agent) -> None:
        self._server = server
        self._agent = agent
        self._tokens = {role: server.token(role) for role in ("operator", "policy", "enrolment")}
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(server.directory / "ca.pem")

    def close(self) -> None:
        self._session.close()

    def say(self, text: str) -> None:
        """Put the text into every field."""
        quoted = urllib.parse.quote(text, safe="")
        self.call("operator", "DELETE", f"/v1/hosts/{quoted}")
        self.call("operator", "GET", f"/{quoted}?{quoted}={quoted}")
        self.call("operator", "POST", "/v1/results/void", {"older_than_ms": text, text: 1})
        for path in (POLL, "/v1/results"):
            self.call("operator", "POST", path, {"hosts": [text], "timeThreshold": text})
            self.call("operator", "POST", path, {"hosts": text, "PCRmask": text, text: text})
        for member in ("host", "host_id", "hours", text):
            self.call("enrolment", "POST", "/v1/enrolment/tokens", {"host": "host-9", member: text})
        for choice in ({text: []}, {text: [text]}, {"golden": [text]}, text):
            for path in ("/v1/reference-preview", "/v1/reference-values/golden/activate"):
                self.call("policy", "POST", path, {"activate": choice, "withdraw": choice})
        for path in ("", "/add", "/activate", "/withdraw"):
            message = {"host": text, "pcr": text, "note": text, "values": [text], text: text}
            self.call("policy", "POST", f"/v1/reference-values/{quoted}{path}", message)
        for path in ("oem", "os", "mles", "mles/whitelist/pcr"):
            message = {"Name": text, "Version": text, "mleName": text, "MLE_Type": text, text: text}
            self.call("policy", "POST", f"{WLM}/{path}", message)
            self.call("policy", "DELETE", f"{WLM}/{path}?Name={quoted}&mleName={quoted}")
        self.say_as_agent(text)

    def say_as_agent(self, text: str) -> None:
        for message in ({"boot_id": text, "wait_ms": 0}, {"boot_id": "x", "wait_ms": text}):
            self.call("", "POST", "/v1/challenge", message)
        for member in ("version", "nonce", "boot_id", "agent_version", "quote", "logs", text):
            self.call("", "POST", "/v1/evidence", {"version": 1, member: text})
        for member in ("host", "token", "ek_certificate", "ak", "request", text):
            self.call("", "POST", "/v1/enrolment", {"host": "host-9", member: text})
            self.call("", "POST", "/v1/enrolment/proof", {"host": "host-9", member: text})

    def call(self, role: str, method: str, path: str, message: Any = None) -> None:
        url = f"https://127.0.0.1:{self._server.port}{path}"
        how: dict[str, Any] = {"cert": self._agent.certificate}
        if role:
            how = {"headers": {"Authorization": f"Bearer {self._tokens[role]}"}}
        answer = self._session.request(method, url, json=message, timeout=10, **how)
        # OpenAttestation's answer to wrong data is 500.
        assert answer.status_code < 500 or WLM in path, (method, path, message, answer.text)
        assert answer.status_code != 429


LINE = re.compile(r"[A-Z]+ [a-z.]+ [^\n]*\Z")


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_no_field_of_a_client_begins_a_line(
    server: Server, agent: Agent, log: io.StringIO, separator: str
) -> None:
    client = Client(server, agent)
    client.say(f"x{separator}{FORGED}")
    client.close()

    lines = log.getvalue().split("\n")
    assert lines.pop() == ""
    assert len(lines) > 10
    for line in lines:
        assert line.isprintable()
        assert LINE.match(line)
        assert not line.startswith(FORGED)


def test_a_fault_of_ours_shows_a_clients_text_behind_a_mark(
    server: Server, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a traceback ends with is often what a client sent."""

    def fail(*_: object) -> Callable[[], None]:
        raise RuntimeError(f"x\n{FORGED}")

    monkeypatch.setattr(server.attestation, "results", fail)
    question = {"hosts": ["host-1"], "max_age_ms": None, "wait_ms": 0}

    answer = server.call("POST", "/v1/results", question, token=server.token("viewer"))

    assert answer.status_code == 500
    assert FORGED in log.getvalue()
    assert f"\n{FORGED}" not in log.getvalue()
