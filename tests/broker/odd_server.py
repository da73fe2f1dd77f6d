# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""An attestation server whose answers a test sets, good or odd: a real HTTPS server, on port 0."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin.broker.settings import OVIRT_TCP, VerifierOptions
from ovirt_tcp_plugin.broker.state.answer import Source
from ovirt_tcp_plugin.broker.verifiers import choose
from ovirt_tcp_plugin.messages import result
from ovirt_tcp_plugin.messages.result import AttestationResult, Level

NOW = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.timezone.utc)
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


@pytest.fixture
def server(site_pki: Path) -> Iterator[Server]:
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
    context.load_cert_chain(site_pki / "server.pem", site_pki / "server.key")
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    behaviour.url = f"https://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield behaviour
    behaviour.over.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def options(pki: Path, kind: str, *urls: str, **changes: Any) -> VerifierOptions:
    """Return the options of servers of a kind."""
    members: dict[str, Any] = {"ca_file": pki / "ca.pem", "deadline_s": 6.0, **changes}
    if kind == OVIRT_TCP:
        members["token_file"] = pki / "token"
    return VerifierOptions(urls=urls, kind=kind, **members)


def source(pki: Path, kind: str, *urls: str, **changes: Any) -> Source:
    """Return the source of a configuration, on a clock of the test's own."""
    return choose.make(options(pki, kind, *urls, **changes), StillClock())  # type: ignore[arg-type]


def good(name: str, **changes: Any) -> dict[str, Any]:
    members = {
        "level": Level.TRUSTED,
        "age_ms": 50,
        "lifetime_ms": 600_000,
        "boot_id": "boot",
        **changes,
    }
    return result.encode(AttestationResult(name, **members))
