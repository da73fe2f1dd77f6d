# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's interface over real HTTP: every route needs the token, and says what the broker knows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import web
from ovirt_tcp_plugin.broker.hooks import HookEvent
from tests.broker.knowledge_test import World

TOKEN = "of the API"


class Service:
    """What the interface needs of the service."""

    def __init__(self) -> None:
        self.events: list[HookEvent] = []

    def run_hook(self, event: HookEvent) -> None:
        if event.name not in ("backend_initialize", "init_vds_on_up"):
            raise errors.NotFound("engine hook", event.name)
        self.events.append(event)


class Api:
    """A served interface, called with the token."""

    def __init__(self) -> None:
        self.world, self.service = World(hosts=10), Service()
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(10)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        knowledge: Any = self.world.knowledge
        service: Any = self.service
        server, port = web.serve(knowledge, service, TOKEN, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}"
        ready.set()
        await self._stopped.wait()
        server.stop()
        await server.close_all_connections()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def call(self, verb: str, path: str, token: str = f"Bearer {TOKEN}") -> requests.Response:
        return requests.request(verb, self.url + path, headers={"Authorization": token}, timeout=10)

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status_code == 200
        return answer.json()


@pytest.fixture
def api() -> Iterator[Api]:
    served = Api()
    yield served
    served.stop()


ROUTES = [
    ("GET", "/v1/hosts"),
    ("GET", "/v1/pools"),
    ("GET", "/v1/why?vm=vm-0&host=host-0"),
    ("GET", "/v1/status"),
    ("GET", "/v1/journal"),
    ("POST", "/v1/guard/release"),
    ("POST", "/v1/guard/reject"),
    ("POST", "/v1/hooks/backend_initialize"),
]


@pytest.mark.parametrize(("verb", "path"), ROUTES)
@pytest.mark.parametrize("token", ["", "Bearer", "Bearer ", "Bearer wrong", TOKEN, f"Bearer {TOKEN}x", "Basic abc"])
def test_nobody_is_answered_without_the_token(api: Api, verb: str, path: str, token: str) -> None:
    answer = api.call(verb, path, token)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert api.service.events == []


@pytest.mark.parametrize(("verb", "path"), ROUTES)
def test_every_route_answers_its_bearer(api: Api, verb: str, path: str) -> None:
    assert api.call(verb, path).status_code == 200


def test_every_route_is_called_here() -> None:
    called = {path.split("?")[0].rsplit("/", 1)[0] if "guard" in path or "hooks" in path else path.split("?")[0]
              for _, path in ROUTES}  # fmt: skip
    assert len(called) == len(web.ROUTES)


def test_hosts_come_with_level_reason_and_place(api: Api) -> None:
    api.world.attest(good=["h1"], bad=["h0"])
    api.world.inside()
    hosts = {one["name"]: one for one in api.get("/v1/hosts")["hosts"]}
    bad, good = hosts["host-0"], hosts["host-1"]
    assert (bad["level"], bad["code"], bad["reason"]) == ("untrusted", "pcr_differs", "PCR 17 is not the known one")
    assert (good["level"], good["inside_wall"], good["ends_in_ms"]) == ("trusted", True, 600_000)
    assert (bad["inside_wall"], bad["ends_in_ms"]) == (False, None)


def test_a_verdict_that_ended_is_shown_as_no_trust(api: Api) -> None:
    api.world.attest(good=["h1"])
    api.world.clock.pass_ms(600_000)
    hosts = {one["name"]: one for one in api.get("/v1/hosts")["hosts"]}
    assert (hosts["host-1"]["level"], hosts["host-1"]["code"]) == ("unknown", "verdict_ended")


def test_why_is_the_decision_by_name_or_id(api: Api) -> None:
    api.world.attest(good=["h1"])
    assert api.get("/v1/why?vm=vm-0&host=host-1")["allowed"] is True
    assert api.get("/v1/why?vm=v0&host=h1")["allowed"] is True
    assert api.get("/v1/why?vm=never-seen&host=h2") == {
        "allowed": False,
        "code": "not_attested",
        "reason": "the host has not been attested since it came Up",
    }


def test_why_of_a_host_in_no_pool_is_not_found(api: Api) -> None:
    answer = api.call("GET", "/v1/why?vm=vm-0&host=stranger")
    assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")


@pytest.mark.parametrize(("verb", "left"), [("release", {"h0", "h1", "h2"}), ("reject", set())])
def test_the_guard_is_decided_here(api: Api, verb: str, left: set[str]) -> None:
    api.world.attest(good=api.world.ids())
    api.world.attest(bad=["h0", "h1", "h2"])
    assert api.get("/v1/pools")["pools"][0]["held"] == ["host-0", "host-1", "host-2"]
    assert api.call("POST", f"/v1/guard/{verb}").json() == {"hosts": ["host-0", "host-1", "host-2"]}
    assert api.world.leaving() == left


def test_a_hook_runs_by_hand_for_a_host_of_a_pool(api: Api) -> None:
    assert api.call("POST", "/v1/hooks/init_vds_on_up?host=host-3").status_code == 200
    assert api.service.events == [HookEvent("init_vds_on_up", "h3")]
    assert api.call("POST", "/v1/hooks/init_vds_on_up?host=stranger").status_code == 404
    assert api.call("POST", "/v1/hooks/no_such_hook").status_code == 404


@pytest.mark.parametrize("path", ["/v1/guard/other", "/v1/hooks/../hosts", "/v1/", "/"])
def test_everything_else_is_nothing(api: Api, path: str) -> None:
    assert api.call("POST", path).status_code in (404, 405)


def test_a_port_that_is_taken_is_said(api: Api) -> None:
    port = int(api.url.rsplit(":", 1)[1])
    service: Any = api.service
    knowledge: Any = api.world.knowledge

    async def serve() -> None:
        web.serve(knowledge, service, TOKEN, "127.0.0.1", port)

    with pytest.raises(errors.Unavailable, match=str(port)):
        asyncio.run(serve())
