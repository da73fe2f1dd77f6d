# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Compare what the simulated engine answers our programs with the answers of a real engine.

Only requests by the SDK from our own programs to a simulator in this process count: tests of the
simulator ask for what no program does. Programs in processes of their own make the same kinds of
requests.
"""

from __future__ import annotations

import threading
import urllib.parse
import weakref
from typing import Any

import ovirtsdk4

from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from tests.lab.engine.structure import Recorded, kind_of

_OURS = "ovirt_tcp_plugin.engine."
# What a test has the simulator say in place of an answer (`faults.AnswerFault`).
_NO_ANSWER = ('<?xml version="1.0"?><hosts><host id="', "[Internal Engine Error")


class Watch:
    """The requests since the last look, and all kinds of them."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self._recorded = Recorded()
        self._lock = threading.Lock()
        # By host and port, as long as a test needs them.
        self._engines: weakref.WeakValueDictionary[str, EngineSimulator] = (
            weakref.WeakValueDictionary()
        )
        self._differences: dict[str, None] = {}
        self._instead = set(_NO_ANSWER)
        self._listen()

    def differences(self) -> list[str]:
        """Return what was different since the last call, each with its kind of request."""
        with self._lock:
            differences = list(self._differences)
            self._differences.clear()
            return differences

    def take(self, url: str, request: Any, response: Any) -> None:
        """Compare an answer that one of our programs got."""
        engine = self._engines.get(urllib.parse.urlsplit(url).netloc)
        if engine is None:
            return
        body = response.body.decode() if isinstance(response.body, bytes) else response.body or ""
        # A refusal may still come when the test has switched it off again.
        self._instead.update(engine.faults.refused_maintenance.values())
        if response.code == 503 or any(text in body for text in self._instead):
            return
        query = {name: str(value) for name, value in (request.query or {}).items()}
        kind = kind_of(request.method, request.path, query, request.body or "")
        differences = self._recorded.compare(kind, response.code, _content_type(response), body)
        with self._lock:
            self.kinds.add(kind)
            for text in differences:
                self._differences[f"{kind}: {text}"] = None

    def _listen(self) -> None:
        start = EngineSimulator.start
        stop = EngineSimulator.stop
        wait = ovirtsdk4.Connection.wait
        watch = self

        def started(engine: EngineSimulator) -> None:
            start(engine)
            watch._engines[urllib.parse.urlsplit(engine.url).netloc] = engine

        def stopped(engine: EngineSimulator) -> None:
            # Somebody else may have its port next.
            watch._engines.pop(urllib.parse.urlsplit(engine.url).netloc, None)
            stop(engine)

        def waited(connection: Any, context: Any, failed_auth: bool = False) -> Any:
            response = wait(connection, context, failed_auth)
            if type(connection).__module__.startswith(_OURS):
                watch.take(connection.url, context[3], response)
            return response

        EngineSimulator.start = started  # type: ignore[method-assign]
        EngineSimulator.stop = stopped  # type: ignore[method-assign]
        ovirtsdk4.Connection.wait = waited


def _content_type(response: Any) -> str:
    for header in response.headers or ():
        name, _, value = header.partition(":")
        if name.strip().lower() == "content-type":
            return value.strip()
    return ""
