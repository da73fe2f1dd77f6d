# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A small real TLS server in the verifier's place.

It answers as the test says, however wrong that is.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union

from cryptography.hazmat.primitives import serialization

from ovirt_tcp_plugin.verifier.authority import Authority, write_key

NOW = datetime.datetime.now(datetime.timezone.utc)

# The bytes of a whole HTTP answer, none to close the connection, or what is done with the
# connection instead.
Answer = Union[bytes, Callable[[ssl.SSLSocket], None]]


def http(status: int, body: Union[bytes, object] = b"", headers: str = "") -> bytes:
    """Return an HTTP answer; a body that is no bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    return head.encode() + content


class FakeVerifier:
    """Answers the requests one after the other; when nothing is left it closes the connection.

    Attributes:
        requests: (path, JSON body) of each request.
        headers: of each request, their names in lower case.
        clients: SHA-256 of each request's client certificate, empty for none.
    """

    def __init__(
        self,
        directory: Path,
        authority: Authority,
        name: str = "127.0.0.1",
        issued: datetime.datetime = NOW,
    ) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.clients: list[str] = []
        self.answers: list[Answer] = []
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(authority.pem)
        certificate, key = authority.issue_server([name], issued)
        (directory / "server.pem").write_bytes(certificate)
        write_key(directory / "server.key", key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        context.load_verify_locations(self.ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop at once, and free whoever waits."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def hold(self, connection: ssl.SSLSocket) -> None:
        """Let the client wait until the test is over."""
        self._ended.wait(20)

    def drip(self, start: bytes) -> Callable[[ssl.SSLSocket], None]:
        """Return an answer that begins so and then goes on for ever, one byte at a time."""

        def send(connection: ssl.SSLSocket) -> None:
            connection.sendall(start)
            while not self._ended.wait(0.02):
                connection.sendall(b"x")

        return send

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=[connection], daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), plain:
            plain.settimeout(20)
            with self._context.wrap_socket(plain, server_side=True) as connection:
                self._open.append(connection)
                self._converse(connection)

    def _converse(self, connection: ssl.SSLSocket) -> None:
        with connection.makefile("rb") as file:
            while line := file.readline():
                self._request(line, file, connection)
                answer = self.answers.pop(0) if self.answers else b""
                if not answer:
                    return
                if callable(answer):
                    answer(connection)
                    return
                connection.sendall(answer)

    def _request(self, line: bytes, file: Any, connection: ssl.SSLSocket) -> None:
        headers = {}
        while (header := file.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = json.loads(file.read(int(headers.get("content-length", 0))) or b"{}")
        certificate = connection.getpeercert(binary_form=True)
        self.clients.append(hashlib.sha256(certificate).hexdigest() if certificate else "")
        self.headers.append(headers)
        self.requests.append((line.split()[1].decode(), body))


def issue(authority: Authority, request: bytes) -> str:
    """Return the client certificate for a PKCS #10 request, PEM text."""
    certificate = authority.issue_agent("host-1", request, NOW)
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
