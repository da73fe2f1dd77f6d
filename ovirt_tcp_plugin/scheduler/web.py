# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's external scheduler: `discover`, `runFilters`, `runCostFunctions`, `runLoadBalancing`.

Source of the rules: `ExternalSchedulerBrokerImpl`. The engine keeps *all* hosts when no answer comes or it cannot be
parsed, so this never raises: in doubt it answers, well-formed, that nobody passes, and why.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import tornado.httpserver
import tornado.netutil
import tornado.web

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.scheduler import trusted_hosts, xmlrpc
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory

log = logging.getLogger("filterd")

# The engine gives up after 100 ms to connect: a short queue would make it keep all hosts under a burst.
BACKLOG = 1024
# Longer than the JVM keeps an idle connection (5 s).
IDLE_CONNECTION_S = 30
BODY_WITHIN_S = 5
MAX_QUEUED_LINES = 10_000


class Scheduler:
    """The four methods over a snapshot directory. `answer` never raises."""

    def __init__(self, directory: SnapshotDirectory) -> None:
        self._directory = directory
        self._lines: queue.SimpleQueue[Optional[tuple[Any, ...]]] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_lines, daemon=True)
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
        self._lines.put(None)
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
            return refusal(*found.reasons)
        return {"result_code": 0, "result": list(found.hosts), "errors": list(found.reasons), "plugin_errors": {}}

    def _log(self, *line: Any) -> None:
        # The queue is never waited for: a slow disk must not hold the engine's cluster lock.
        if self._lines.qsize() < MAX_QUEUED_LINES:
            self._lines.put(line)

    def _write_lines(self) -> None:
        for line in iter(self._lines.get, None):
            log.info("%s", " ".join(str(part) for part in line))


def refusal(*reasons: str) -> dict[str, Any]:
    """Return the reply by which no host passes; the engine writes the reasons as events."""
    return {"result_code": 1, "result": [], "errors": list(reasons), "plugin_errors": {}}


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


class _Handler(tornado.web.RequestHandler):
    """POST of an XML-RPC call, on any path."""

    def initialize(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def post(self, *_: str) -> None:
        self.set_header("Content-Type", "text/xml")
        self.finish(self._scheduler.answer(self.request.body))


def serve(scheduler: Scheduler, listeners: Sequence[socket.socket]) -> tornado.httpserver.HTTPServer:
    """Return a server on these listening sockets."""
    shared: Mapping[str, Any] = {"scheduler": scheduler}
    application = tornado.web.Application([(r"/(.*)", _Handler, dict(shared))], log_function=lambda _: None)
    server = tornado.httpserver.HTTPServer(
        application,
        # One byte more than a call may have, so that a call that is too long still gets an answer.
        max_body_size=16 * xmlrpc.MAX_REQUEST_SIZE,
        max_buffer_size=17 * xmlrpc.MAX_REQUEST_SIZE,
        body_timeout=BODY_WITHIN_S,
        idle_connection_timeout=IDLE_CONNECTION_S,
    )
    server.add_sockets(list(listeners))
    return server
