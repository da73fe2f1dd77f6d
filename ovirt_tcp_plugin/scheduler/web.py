# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's external scheduler: `discover`, `runFilters`, `runCostFunctions`, `runLoadBalancing`.

Source of the rules: `ExternalSchedulerBrokerImpl`. The engine keeps *all* hosts when no answer comes or it cannot be
parsed, so this never raises: in doubt it answers, well-formed, that nobody passes, and why.
"""

from __future__ import annotations

import collections
import datetime
import logging
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Optional

import tornado.httpserver
import tornado.iostream
from tornado import httputil

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.placement import filter_unit
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
# Faults of snapshots that a refusal tells.
MAX_FAULTS = 3
# The engine's log takes 10,000 characters (`MaxAuditLogMessageLength`); people do not.
MAX_REASON_LENGTH = 2000
MAX_ID_LENGTH = 40
# No VM to move, and no hosts to move it to.
NO_BALANCING = ("", ())


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
            moment = datetime.datetime.now(datetime.timezone.utc)
            description = filter_unit.offered_description(moment, secrets.token_hex(4))
            unit = [description, filter_unit.PROPERTIES]
            return {"filters": {filter_unit.NAME: unit}, "scores": {}, "balance": {}}
        if call.method == "runFilters" and len(arguments) == 4:
            return self._run_filters(*arguments)
        if call.method == "runCostFunctions" and len(arguments) == 4:
            return refusal("ovirt-tcp has no cost function")
        if call.method == "runLoadBalancing" and len(arguments) == 3:
            # The engine takes a VM and its hosts out of the list before it looks at the code, and
            # an exception there ends balancing for all clusters (`getBalanceResult`).
            return {**refusal("ovirt-tcp has no load balancing"), "result": NO_BALANCING}
        return refusal(f"unknown method or wrong number of arguments: {call.method[:40]}/{len(arguments)}")

    def _run_filters(self, units: object, hosts: object, vm_id: object, properties: object) -> dict[str, Any]:
        unit_names = _texts(units)
        host_ids = _texts(hosts)
        if unit_names is None or host_ids is None or not isinstance(vm_id, str):
            return refusal("runFilters wants lists of names and host ids, and a VM id")
        foreign = sorted(set(unit_names) - {filter_unit.NAME})
        if foreign or not unit_names:
            names = ", ".join(foreign)[:100]
            return refusal(f"this scheduler has no filter {names}, only {filter_unit.NAME}")
        values = properties if isinstance(properties, dict) else {}
        texts = {str(name): str(value) for name, value in values.items() if value is not None}
        accepted = trusted_hosts.accept(self._directory.by_host, host_ids, vm_id, texts, boottime_ms())
        if host_ids and not accepted.hosts:
            return refusal(_sentence(vm_id, len(host_ids), [*accepted.reasons, *self._faults()]))
        return {"result_code": 0, "result": list(accepted.hosts), "errors": [], "plugin_errors": {}}

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


def refusal(reason: str) -> dict[str, Any]:
    """Return the reply by which no host passes.

    One reason, because the engine writes each as an ERROR event of its own, without any limit, and
    asks again and again for highly available VMs (`EXTERNAL_SCHEDULER_ERROR`).
    """
    return {"result_code": 1, "result": [], "errors": [reason], "plugin_errors": {}}


def _sentence(vm_id: str, asked: int, reasons: Sequence[str]) -> str:
    """Return why a VM finds no host; the clause of the most hosts first, for a portal that cuts."""
    text = "; ".join(reasons)
    return f"{text}. VM {vm_id[:MAX_ID_LENGTH]} may run on none of {asked} hosts."[:MAX_REASON_LENGTH]


def _texts(value: object) -> Optional[list[str]]:
    """Return the value if it is a list of texts, else None."""
    return value if isinstance(value, list) and set(map(type, value)) <= {str} else None


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
