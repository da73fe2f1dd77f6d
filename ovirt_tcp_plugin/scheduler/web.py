# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's external scheduler: `discover`, `runFilters`, `runCostFunctions`, `runLoadBalancing`.

Source of the rules: `ExternalSchedulerBrokerImpl`. The engine keeps *all* hosts when no answer comes or it cannot be
parsed, so this never raises: in doubt it answers, well-formed, that nobody passes, and why.
"""

from __future__ import annotations

import collections
import logging
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import tornado.httpserver
import tornado.iostream
from tornado import httputil

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.scheduler import trusted_hosts, xmlrpc
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory

log = logging.getLogger("filterd")

# The engine gives up after 100 ms to connect: a short queue would make it keep all hosts under a burst.
BACKLOG = 1024
# Longer than the JVM keeps an idle connection (5 s).
IDLE_CONNECTION_S = 30
# The engine's machine may be slow, or its JVM collect garbage in the middle of a call.
BODY_WITHIN_S = 30
# Beyond it a body is not even read; what is longer than a call may be, but not that long, is read and refused.
MAX_BODY_SIZE = 64 * 1024 * 1024
MAX_CONNECTIONS = 1000
# Of lines that are not written yet, the oldest are lost.
MAX_QUEUED_LINES = 10_000
WRITE_EVERY_S = 0.2
# The engine writes each as an event of its own.
MAX_FAULTS = 3


class Scheduler:
    """The four methods over a snapshot directory. `answer` never raises."""

    def __init__(self, directory: SnapshotDirectory) -> None:
        self._directory = directory
        self._lines: collections.deque[tuple[Any, ...]] = collections.deque(maxlen=MAX_QUEUED_LINES)
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._keep_writing, daemon=True)
        self._writer.start()

    def answer(self, body: bytes) -> bytes:
        """Return the reply to a request."""
        began = time.perf_counter()
        try:
            call = xmlrpc.parse_call(body)
            value = self._dispatch(call)
        except errors.Error as e:
            value, call = refusal(str(e)), xmlrpc.Call("?", ())
        except Exception as e:  # noqa: BLE001 - the edge: whatever happened, the engine must get an answer
            value, call = refusal(f"internal fault ({type(e).__name__}); the log of ovirt-tcp-filterd says more"), None
            self._log("fault", repr(e))
        encoded = xmlrpc.encode_answer(value)
        if call is not None and call.method == "runFilters" and isinstance(value, dict):
            took_ms = (time.perf_counter() - began) * 1000
            self._log("runFilters", call.parameters[2:3], len(value["result"]), value["errors"][:1], round(took_ms, 2))
        return encoded

    def close(self) -> None:
        """Write the last log lines."""
        self._closed.set()
        self._writer.join(2)

    def _dispatch(self, call: xmlrpc.Call) -> Any:
        arguments = call.parameters
        if call.method == "discover" and not arguments:
            units = {trusted_hosts.NAME: [trusted_hosts.DESCRIPTION, trusted_hosts.PROPERTIES]}
            return {"filters": units, "scores": {}, "balance": {}}
        if call.method == "runFilters" and len(arguments) == 4:
            return self._run_filters(*arguments)
        if call.method == "runCostFunctions" and len(arguments) == 4:
            return refusal("ovirt-tcp has no cost function")
        if call.method == "runLoadBalancing" and len(arguments) == 3:
            return refusal("ovirt-tcp has no load balancing")
        return refusal(f"unknown method or wrong number of arguments: {call.method[:40]}/{len(arguments)}")

    def _run_filters(self, names: object, hosts: object, vm_id: object, properties: object) -> dict[str, Any]:
        if not _texts(names) or not _texts(hosts) or not isinstance(vm_id, str):
            return refusal("runFilters wants lists of names and host ids, and a VM id")
        given = properties if isinstance(properties, dict) else {}
        foreign = sorted(set(names) - {trusted_hosts.NAME})  # type: ignore[call-overload]
        if foreign or not names:
            return refusal(f"this scheduler has no filter {', '.join(foreign)[:100]}, only {trusted_hosts.NAME}")
        known = {str(k): str(v) for k, v in given.items() if v is not None}
        found = trusted_hosts.accept(self._directory.by_host, hosts, vm_id, known, boottime_ms())  # type: ignore[arg-type]
        if not found.hosts and hosts:
            return refusal(*found.reasons, *self._faults())
        return {"result_code": 0, "result": list(found.hosts), "errors": list(found.reasons), "plugin_errors": {}}

    def _faults(self) -> list[str]:
        """Return what is wrong with the snapshots: it may be why nobody passes."""
        faults = list(self._directory.faults.items())[:MAX_FAULTS]
        return [f"snapshot {name[:80]}: {reason[:200]}" for name, reason in faults]

    def _log(self, *line: Any) -> None:
        # Nobody is waited for or woken: neither a slow disk nor the writer may hold the engine's cluster lock.
        self._lines.append(line)

    def _keep_writing(self) -> None:
        while not self._closed.wait(WRITE_EVERY_S):
            self._write_lines()
        self._write_lines()

    def _write_lines(self) -> None:
        while self._lines:
            log.info("%s", " ".join(map(str, self._lines.popleft())))


def refusal(*reasons: str) -> dict[str, Any]:
    """Return the reply by which no host passes; the engine writes the reasons as events."""
    return {"result_code": 1, "result": [], "errors": list(reasons), "plugin_errors": {}}


def _texts(value: object) -> bool:
    return isinstance(value, list) and set(map(type, value)) <= {str}


class _Request(httputil.HTTPMessageDelegate):
    """One request: whatever its method, path and headers are, the answer has status 200, for the engine takes every other
    as no answer and keeps all hosts."""

    def __init__(self, scheduler: Scheduler, connection: httputil.HTTPConnection) -> None:
        self._scheduler, self._connection = scheduler, connection
        self._body: list[bytes] = []
        self._left = xmlrpc.MAX_REQUEST_SIZE + 1
        self._method = ""

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> None:
        self._method = start_line.method
        length = headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdecimal() and len(length) < 20 and int(length) <= MAX_BODY_SIZE):
            # Answered at once, and then the connection ends; the library would answer with status 400.
            del headers["Content-Length"]
            self._reply(xmlrpc.encode_answer(refusal(f"a body of {length[:20]} bytes is not read")))

    def data_received(self, chunk: bytes) -> None:
        # What is too long is read to its end, and one byte too many of it is kept: then the call is refused as too long.
        if self._left > 0:
            self._body.append(chunk[: self._left])
            self._left -= len(chunk)

    def finish(self) -> None:
        self._reply(self._scheduler.answer(b"".join(self._body)))

    def _reply(self, answer: bytes) -> None:
        headers = httputil.HTTPHeaders({"Content-Type": "text/xml", "Content-Length": str(len(answer))})
        content = b"" if self._method == "HEAD" else answer
        self._connection.write_headers(httputil.ResponseStartLine("HTTP/1.1", 200, "OK"), headers, content)
        self._connection.finish()


class _Requests(httputil.HTTPServerConnectionDelegate):
    """Begins each request of a connection."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> _Request:
        return _Request(self._scheduler, request_conn)


class _Server(tornado.httpserver.HTTPServer):
    """Drops the oldest connection beyond MAX_CONNECTIONS: nobody on this machine keeps the engine out by opening many."""

    def initialize(self, *args: Any, **options: Any) -> None:
        super().initialize(*args, **options)
        self._streams: dict[tornado.iostream.IOStream, None] = {}

    def handle_stream(self, stream: tornado.iostream.IOStream, address: tuple[object, ...]) -> None:
        self._streams[stream] = None
        if len(self._streams) > MAX_CONNECTIONS:
            oldest = next(iter(self._streams))
            del self._streams[oldest]
            oldest.close()
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        self._streams.pop(server_conn.stream, None)
        super().on_close(server_conn)


def serve(scheduler: Scheduler, listeners: Sequence[socket.socket]) -> tornado.httpserver.HTTPServer:
    """Return a server on these listening sockets."""
    server = _Server(
        _Requests(scheduler),
        max_body_size=MAX_BODY_SIZE,
        max_buffer_size=MAX_BODY_SIZE,
        body_timeout=BODY_WITHIN_S,
        idle_connection_timeout=IDLE_CONNECTION_S,
    )
    server.add_sockets(list(listeners))
    return server
