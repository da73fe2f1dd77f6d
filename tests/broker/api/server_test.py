# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's interface over real HTTP: who may call what, and that it says what the broker
knows."""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from ovirt_tcp_plugin import errors, tokens
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.api import server as web
from ovirt_tcp_plugin.broker.hooks import NAMES
from ovirt_tcp_plugin.broker.store.tokens import INCLUDES
from tests.broker.api.served import Api, use_another_policy

ROOT = Path(__file__).parents[3]
METHODS = ("GET", "POST", "PUT", "DELETE")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    served = Api(tmp_path, settings.ApiOptions(port=0))
    yield served
    served.stop()


def callable_path(pattern: str) -> str:
    return pattern.replace("(release|reject)", "reject").replace("([a-z_]+)", "backend_initialize")


class TestCallers:
    def test_every_route_declares_its_callers(self) -> None:
        assert [path for path, handler in web.ROUTES if not handler.callers] == []

    @pytest.mark.parametrize("caller", [*INCLUDES, "nobody", "ended"])
    def test_every_route_answers_only_whom_it_declares(self, api: Api, caller: str) -> None:
        api.tokens.add("ended", "operator", "", int(datetime.datetime.now().timestamp()) - 1)
        secret = {"nobody": "", "ended": "ended"}.get(caller) or api.secrets.get(caller, "")
        may = {one.value for one in INCLUDES.get(caller, frozenset())} | {"anyone"}
        for pattern, handler in web.ROUTES:
            for method in METHODS:
                declared = {one.value for one in handler.callers_of(method)}
                answer = api.send(method, callable_path(pattern), f"Bearer {secret}")
                assert (answer.status_code != 401) is bool(declared & may), (
                    method,
                    pattern,
                    answer.status_code,
                )
        assert bool(api.service.events) is (caller == "operator")

    @pytest.mark.parametrize(
        "shown", ["", "Bearer", "Bearer ", "Bearer wrong", "secret of viewer", "Basic abc"]
    )
    def test_nobody_is_answered_without_a_token(self, api: Api, shown: str) -> None:
        answer = api.send("GET", "/v1/hosts", shown)
        assert (answer.status_code, answer.json()) == (
            401,
            {"code": "unauthenticated", "reason": "this needs viewer"},
        )

    def test_a_viewer_decides_nothing(self, api: Api) -> None:
        api.world.attest(good=api.world.ids())
        api.world.attest(bad=["h0", "h1", "h2"])
        assert api.call("POST", "/v1/guard/release", "viewer").status_code == 401
        assert api.get("/v1/guard")["guards"][0]["held"] == ["host-0", "host-1", "host-2"]

    def test_a_token_that_was_removed_opens_nothing(self, api: Api) -> None:
        assert api.call("GET", "/v1/hosts", "viewer").status_code == 200
        api.tokens.remove(tokens.identifier(tokens.digest(api.secrets["viewer"])))
        assert api.call("GET", "/v1/hosts", "viewer").status_code == 401

    @pytest.mark.parametrize("path", ["/v1/guard/other", "/v1/hooks/../secrets", "/v1/", "/"])
    def test_everything_else_is_nothing(self, api: Api, path: str) -> None:
        assert api.send("POST", path, "").status_code == 404

    def test_over_a_network_it_speaks_tls_only(self, tmp_path: Path, site_pki: Path) -> None:
        options = settings.ApiOptions(
            port=0, certificate=str(site_pki / "server.pem"), key=str(site_pki / "server.key")
        )
        served = Api(tmp_path, options, site_pki / "ca.pem")
        try:
            assert served.get("/v1/pools")["pools"][0]["name"] == "Trusted"
            with pytest.raises(requests.ConnectionError):
                requests.get(served.url.replace("https", "http") + "/v1/health", timeout=5)
        finally:
            served.stop()

    @pytest.mark.parametrize(
        "how",
        [
            {"address": "0.0.0.0"},  # noqa: S104 - that is what must be refused
            {"address": "192.0.2.1"},
            {"address": "engine.example.com"},
            {"certificate": "only.pem"},
        ],
    )
    def test_tokens_cross_no_network_in_the_clear(self, how: dict[str, str]) -> None:
        with pytest.raises(ValueError, match=r"certificate|address"):
            settings.ApiOptions(**how)  # type: ignore[arg-type]


def test_the_description_names_every_route_and_its_callers() -> None:
    text = (ROOT / "docs" / "broker-api.md").read_text().replace("\\|", "|")
    rows = re.findall(r"^\| `(/\S+)` \| ([A-Z]+) \| ([a-z]+) \|", text, re.MULTILINE)
    answered = [
        (path, method, *(caller.value for caller in handler.callers_of(method)))
        for path, handler in web.ROUTES
        for method in METHODS
        if getattr(handler, method.lower()) is not getattr(web.BrokerHandler, method.lower())
    ]
    assert sorted(rows) == sorted(answered)


class TestAnswers:
    def test_hosts_come_with_level_reason_and_place(self, api: Api) -> None:
        api.world.attest(good=["h1"], bad=["h0"])
        api.world.inside()
        hosts = {one["name"]: one for one in api.get("/v1/hosts")["hosts"]}
        bad, good = hosts["host-0"], hosts["host-1"]
        assert (bad["level"], bad["code"], bad["reason"]) == (
            "untrusted",
            "pcr_differs",
            "PCR 17 is not the known one",
        )
        assert (good["level"], good["inside_wall"], good["ends_in_ms"]) == (
            "trusted",
            True,
            600_000,
        )
        assert (bad["inside_wall"], bad["ends_in_ms"]) == (False, None)

    def test_a_verdict_that_ended_is_shown_as_no_trust(self, api: Api) -> None:
        api.world.attest(good=["h1"])
        api.world.clock.pass_ms(600_000)
        hosts = {one["name"]: one for one in api.get("/v1/hosts")["hosts"]}
        assert (hosts["host-1"]["level"], hosts["host-1"]["code"]) == ("unknown", "verdict_ended")

    def test_why_is_answered_by_name_or_id(self, api: Api) -> None:
        api.world.attest(good=["h1"])
        assert api.get("/v1/why?vm=vm-0&host=host-1")["allowed"] is True
        assert api.get("/v1/why?vm=v0&host=h1")["allowed"] is True
        refused = api.get("/v1/why?vm=never-seen&host=h2")
        assert (refused["allowed"], refused["code"]) == (False, "not_attested")
        assert (refused["vm"]["known"], refused["vm"]["needs_trust"]) == (False, True)

    def test_why_of_a_host_that_there_is_not_is_not_found(self, api: Api) -> None:
        answer = api.call("GET", "/v1/why?vm=vm-0&host=stranger")
        assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/why?vm=vm-0",
            f"/v1/why?vm={'x' * 300}&host=h1",
            "/v1/history?since=yesterday",
            "/v1/history?since=0000-01-01T00:00:00Z",
            "/v1/history?most=0",
            "/v1/history?most=1e3",
            "/v1/history?host=%ff",
        ],
    )
    def test_a_bad_question_is_the_callers_fault(self, api: Api, path: str) -> None:
        assert api.call("GET", path).status_code == 400

    def test_the_startup_attestation_shows_its_progress(self, api: Api) -> None:
        api.world.state.questions.begin_stages()
        api.world.state.questions.stage(4)
        told = api.get("/v1/status")
        assert told["startup"] == {"stage": 1, "asked": 4, "total": 10, "done": False}
        assert (told["engine_age_ms"], told["listing_age_ms"]) == (1500, None)

    def test_another_broker_is_named(self, api: Api) -> None:
        charge = api.get("/v1/pools")["charge"]
        assert charge == {"machine": "engine.lab", "acts": True, "others": ["copy.lab"]}

    @pytest.mark.parametrize(("verb", "left"), [("release", {"h0", "h1", "h2"}), ("reject", set())])
    def test_the_guard_is_decided_here_and_the_history_says_by_whom(
        self, api: Api, verb: str, left: set[str]
    ) -> None:
        api.world.attest(good=api.world.ids())
        api.world.attest(bad=["h0", "h1", "h2"])
        assert api.get("/v1/guard")["guards"] == [
            {
                "pool": "Trusted",
                "observation": False,
                "tripped": True,
                "held": ["host-0", "host-1", "host-2"],
            }
        ]
        assert api.call("POST", "/v1/guard/release?pool=Other").status_code == 404
        assert api.call("POST", f"/v1/guard/{verb}?pool=Trusted").json() == {
            "hosts": ["host-0", "host-1", "host-2"]
        }
        assert api.world.leaving() == left
        (told,) = [
            one
            for one in api.get("/v1/history?host=host-0")["history"]
            if one["code"] == "guard_decided"
        ]
        assert f"token {tokens.identifier(tokens.digest(api.secrets['operator']))}" in told["text"]
        assert api.secrets["operator"] not in told["text"]

    def test_a_pool_is_ended_here_and_the_history_says_by_whom(self, api: Api) -> None:
        use_another_policy(api.world)
        answer = api.call("POST", "/v1/pools/end?pool=Trusted")
        assert (answer.status_code, answer.json()) == (200, {"pool": "Trusted", "was_pool": True})
        assert api.get("/v1/pools")["pools"] == []
        history = api.get("/v1/history")["history"]
        (entry,) = [entry for entry in history if entry["code"] == "pool_end"]
        assert re.search(r"token [0-9a-f]+ decided so", entry["text"])
        again = api.call("POST", "/v1/pools/end?pool=Trusted")
        assert (again.status_code, again.json()["was_pool"]) == (200, False)

    def test_a_pool_whose_policy_is_ours_is_not_ended(self, api: Api) -> None:
        answer = api.call("POST", "/v1/pools/end?pool=Trusted")
        assert (answer.status_code, answer.json()["code"]) == (409, "Conflict")
        assert "give the cluster another policy" in answer.json()["reason"]
        assert api.get("/v1/pools")["pools"][0]["policy_state"] == "trusted"

    def test_a_pool_under_another_policy_is_listed_as_such(self, api: Api) -> None:
        use_another_policy(api.world)
        (pool,) = api.get("/v1/pools")["pools"]
        assert (pool["policy"], pool["policy_state"]) == ("power_saving", "other")

    @pytest.mark.parametrize(
        ("path", "status"), [("/v1/pools/end", 400), ("/v1/pools/end?pool=Stranger", 404)]
    )
    def test_the_end_of_no_pool_is_the_callers_fault(
        self, api: Api, path: str, status: int
    ) -> None:
        assert api.call("POST", path).status_code == status

    def test_a_hook_runs_by_hand_for_a_host_or_a_vm(self, api: Api) -> None:
        assert api.call("POST", "/v1/hooks/init_vds_on_up?host=host-3").status_code == 200
        assert api.call("POST", "/v1/hooks/vm_moved?vm=vm-1").status_code == 200
        assert api.service.events == [("init_vds_on_up", "host-3", ""), ("vm_moved", "", "vm-1")]
        assert api.call("POST", "/v1/hooks/no_such_hook").status_code == 404

    @pytest.mark.parametrize("name", sorted(set(NAMES) - {"backend_initialize"}))
    def test_a_hook_without_its_host_or_vm_is_not_run(self, api: Api, name: str) -> None:
        reply = api.call("POST", f"/v1/hooks/{name}")
        assert reply.status_code == 400
        assert "is missing" in reply.json()["reason"]
        assert api.service.events == []

    def test_a_port_that_is_taken_is_said(self, api: Api) -> None:
        port = int(api.url.rsplit(":", 1)[1])

        async def serve() -> None:
            web.serve(api.context, settings.ApiOptions(port=port))

        with pytest.raises(errors.Unavailable, match=str(port)):
            asyncio.run(serve())


def test_metrics_tell_levels_places_and_ages(api: Api) -> None:
    api.world.attest(good=["h1", "h2"], bad=["h0"])
    api.world.inside()
    api.service.metrics.question(answered=True)
    text = api.call("GET", "/metrics", "viewer").text
    told = {
        (sample.name.removeprefix("ovirt_tcp_broker_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert (told["hosts", "trusted"], told["hosts", "untrusted"], told["hosts", "unknown"]) == (
        2,
        1,
        7,
    )
    assert (told["hosts_inside_walls",], told["pools",], told["guards_tripped",]) == (2, 1, 0)
    assert (told["questions_total", "answered"], told["engine_answer_age_seconds",]) == (1, 1.5)
    assert (told["pools_by_policy", "trusted"], told["pools_by_policy", "other"]) == (1, 0)
    assert told["listing_age_seconds",] == -1
