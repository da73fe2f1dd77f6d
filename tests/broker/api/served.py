# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's interface, served over real HTTP with a token of each role."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from pathlib import Path
from typing import Any

import requests

from ovirt_tcp_plugin import errors, tokens
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.api import server as web
from ovirt_tcp_plugin.broker.hooks import NAMES
from ovirt_tcp_plugin.broker.metrics import Ages, Metrics
from ovirt_tcp_plugin.broker.state.readout import ChargeState
from ovirt_tcp_plugin.broker.store.database import Database
from ovirt_tcp_plugin.broker.store.history import History
from ovirt_tcp_plugin.broker.store.tokens import INCLUDES, Tokens
from ovirt_tcp_plugin.broker.workers.events import EventWriter
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.placement.inventory import Policy
from tests.broker.state.world import World


class Service:
    """What the interface needs of the service."""

    def __init__(self, writer: EventWriter) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.metrics = Metrics()
        self.save_all = writer.record

    def run_hook_by_hand(self, name: str, host: str, vm: str) -> None:
        if name not in NAMES:
            raise errors.NotFound("engine hook", name)
        self.events.append((name, host, vm))

    def ages(self) -> Ages:
        return Ages(1500, None)

    def charge(self) -> ChargeState:
        return ChargeState("engine.lab", True, ("copy.lab",))


class Api:
    """A served interface with a token of each role."""

    def __init__(
        self, directory: Path, options: settings.ApiOptions, authority: Path | None = None
    ) -> None:
        self.world, self.database, self._authority = World(hosts=10), Database(directory), authority
        self.history, self.tokens = History(self.database, 1000, 90), Tokens(self.database)
        engine: Any = None
        clock: Any = self.world.clock
        self.writer = EventWriter(self.world.state.outbox, self.history, engine, Metrics(), clock)
        self.service, self.options = Service(self.writer), options
        self.secrets = {role: f"secret of {role}" for role in INCLUDES}
        for role, secret in self.secrets.items():
            self.tokens.add(secret, role, "", tokens.NEVER)
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(10)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server, port = web.serve(self.context, self.options)
        self.url = f"{'https' if self.options.certificate else 'http'}://127.0.0.1:{port}"
        ready.set()
        await self._stopped.wait()
        server.stop()
        await server.close_all_connections()

    @property
    def context(self) -> web.Context:
        service: Any = self.service
        return web.Context(self.world.state, service, self.history, self.tokens, Clock())

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self.database.close()

    def send(self, verb: str, path: str, authorization: str) -> requests.Response:
        verify: Any = str(self._authority) if self._authority else True
        headers = {"Authorization": authorization}
        return requests.request(verb, self.url + path, headers=headers, timeout=10, verify=verify)

    def call(self, verb: str, path: str, role: str = "operator") -> requests.Response:
        return self.send(verb, path, f"Bearer {self.secrets[role]}")

    def get(self, path: str) -> Any:
        answer = self.call("GET", path, "viewer")
        assert answer.status_code == 200, answer.text
        return answer.json()


def use_another_policy(world: World) -> None:
    """Give the cluster a policy without our unit, and let the broker look."""
    world.policy = Policy("plain", "power_saving")
    world.cluster = dataclasses.replace(world.cluster, policy_id="plain")
    world.look()
