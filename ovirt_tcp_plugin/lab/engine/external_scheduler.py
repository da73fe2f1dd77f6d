# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's client of the external scheduler.

It writes byte for byte what Apache xmlrpc-client 3.1.3 writes. Source of the rules:
`ExternalSchedulerBrokerImpl`. Values travel untyped, an empty map is
`<struct/>`, connections are kept alive. No answer, a Fault or an answer that cannot be parsed keeps
all hosts; an answer without `result` keeps none; one without `result_code` breaks the engine's
command.
"""

from __future__ import annotations

import dataclasses
import http.client
import socket
import threading
import urllib.parse
import xml.parsers.expat
import xmlrpc.client
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

CONNECT_WITHIN_S = 0.1  # ExternalSchedulerConnectionTimeout
MAX_ANSWER_SIZE = 16 * 1024 * 1024
_USER_AGENT = "Apache XML RPC 3.1.3 (Sun HTTP Transport)"
_KINDS = frozenset({"filters", "scores", "balance"})
_EXTENSIONS = "http://ws.apache.org/xmlrpc/namespaces/extensions"


class NoAnswer(Exception):
    """The engine goes on as if there were no external scheduler."""


class CommandFails(Exception):
    """The answer leaves the engine with an exception: the command itself fails."""


@dataclasses.dataclass(frozen=True)
class FilterAnswer:
    """A reply envelope. `result` is None when it is missing."""

    result_code: int
    result: Any
    errors: Sequence[str]
    plugin_errors: Mapping[str, Sequence[str]]


class ExternalScheduler:
    """Connections that are kept alive and used one call at a time, as the JVM keeps them.

    Thread-safe.
    """

    def __init__(self, url: str, response_within_s: float) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host = parts.hostname or "localhost"
        self._port = parts.port or 80
        self._path = parts.path or "/"
        self.within_s = response_within_s
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def discover(self) -> Mapping[str, Mapping[str, Any]]:
        """Return units by kind: `filters`, `scores`, `balance`. Raises NoAnswer."""
        kinds = self._call(request("discover", []))
        if not isinstance(kinds, dict) or not set(kinds) <= _KINDS:
            raise NoAnswer("discovery answered something unknown")
        if not all(_describes_units(units) for units in kinds.values()):
            raise NoAnswer("discovery answered units without description and properties")
        return kinds

    def run_filters(
        self, names: Sequence[str], hosts: Sequence[str], vm: str, properties: Mapping[str, str]
    ) -> FilterAnswer:
        """Return the reply. Raises NoAnswer or CommandFails."""
        parameters = [list(names), list(hosts), vm, dict(properties)]
        reply = self._call(request("runFilters", parameters))
        if isinstance(reply, list):
            return FilterAnswer(0, reply, [], {})  # the old form
        if not isinstance(reply, dict):
            return FilterAnswer(0, None, [], {})
        if "result_code" not in reply:
            raise CommandFails("NullPointerException: result_code")
        errors = reply.get("errors", [])
        plugin_errors = reply.get("plugin_errors", {})
        return FilterAnswer(reply["result_code"], reply.get("result"), errors, plugin_errors)

    def _call(self, body: bytes) -> Any:
        answer = self._exchange(body)
        if b"<nil/>" in answer or b"<i8>" in answer:
            raise NoAnswer("an answer with an extension type that is not enabled")
        try:
            (value,), _method = xmlrpc.client.loads(answer)
        except xmlrpc.client.Fault as e:
            raise NoAnswer(f"fault {e.faultString}") from e
        except (
            xml.parsers.expat.ExpatError,
            xmlrpc.client.Error,
            ValueError,
            TypeError,
            KeyError,
        ) as e:
            raise NoAnswer("an answer that cannot be parsed") from e
        return value

    def _exchange(self, body: bytes) -> bytes:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._send(connection, body)
            except socket.timeout as e:
                raise NoAnswer(f"{type(e).__name__}: {e}") from e
            except (OSError, http.client.HTTPException):
                connection.close()  # the server closed an idle connection: the JVM tries once more
        try:
            return self._send(self._connect(), body)
        except (OSError, http.client.HTTPException) as e:
            raise NoAnswer(f"{type(e).__name__}: {e}") from e

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_WITHIN_S)
        connection.connect()
        connection.sock.settimeout(self.within_s)
        return connection

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> bytes:
        headers = {
            "Content-Type": "text/xml",
            "User-Agent": _USER_AGENT,
            "Connection": "keep-alive",
        }
        try:
            connection.request("POST", self._path, body, headers)
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER_SIZE)
        except BaseException:
            connection.close()
            raise
        if answer.will_close or not answer.isclosed():
            connection.close()
        else:
            with self._lock:
                self._idle.append(connection)
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        return content


def _describes_units(units: Any) -> bool:
    """Return whether each unit of an answer comes with description and properties."""
    if not isinstance(units, dict):
        return False
    return all(isinstance(unit, list) and len(unit) > 1 for unit in units.values())


def request(method: str, parameters: Sequence[Any]) -> bytes:
    """Return the body of a call as the Java client writes it: one line, strings untyped."""
    encoded = "".join(f"<param>{_value(value)}</param>" for value in parameters)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<methodCall xmlns:ex="{_EXTENSIONS}"><methodName>{method}</methodName>'
        f"<params>{encoded}</params></methodCall>"
    ).encode()


def _value(value: Any) -> str:
    if value is None:
        return "<value><ex:nil/></value>"
    if isinstance(value, int):
        return f"<value><i4>{value}</i4></value>"
    if isinstance(value, list):
        items = "".join(_value(item) for item in value)
        return f"<value><array><data>{items}</data></array></value>"
    if isinstance(value, dict):
        return f"<value>{_struct(value)}</value>"
    return f"<value>{escape(value)}</value>"


def _struct(members: Mapping[str, Any]) -> str:
    if not members:
        return "<struct/>"
    encoded: list[str] = []
    for name, value in members.items():
        encoded.append(f"<member><name>{escape(name)}</name>{_value(value)}</member>")
    return f"<struct>{''.join(encoded)}</struct>"
