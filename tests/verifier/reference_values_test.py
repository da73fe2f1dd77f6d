# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures of another file
"""Reference values over HTTPS: look at a change first, then make it; it counts at once, for hosts
that are silent, too."""

from __future__ import annotations

import concurrent.futures
import random
from typing import Any

import pytest
import sqlalchemy as sa

from ovirt_tcp_plugin.messages import reference_values
from ovirt_tcp_plugin.messages.reference_values import Value
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store.database import Database
from tests.verifier.conftest import good_boot
from tests.verifier.software_tpm import SoftwareTpm, launch_events
from tests.verifier.vendor import Vendor
from tests.verifier.web_test import Agent, Server, level_of, server  # noqa: F401  (the fixture)

SETS = "/v1/reference-values"


class Administrator:
    """Chooses reference values."""

    def __init__(self, verifier: Server) -> None:
        self.server, self.token = verifier, verifier.token("policy")

    def ask(self, method: str, path: str, message: Any = None) -> tuple[int, Any]:
        answer = self.server.call(method, path, message, token=self.token)
        return answer.status_code, answer.json()

    def add(
        self, component: str, digest: str, staged: bool = False, **more: str
    ) -> tuple[int, Any]:
        value = reference_values.encode_value(
            Value("sha256", 17, component, digest, staged=staged, **more)
        )
        return self.ask("POST", f"{SETS}/golden/add", {"value": value})

    def preview(self, **change: Any) -> dict[str, tuple[str, str]]:
        status, answer = self.ask("POST", "/v1/reference-preview", change)
        assert status == 200, answer
        return {one["host_name"]: (one["now"], one["then"]) for one in answer["changes"]}

    def levels(self) -> dict[str, str]:
        return {one["host_name"]: one["level"] for one in self.ask("GET", "/v1/hosts")[1]["hosts"]}

    def import_from(self, agent: Agent, name: str, staged: bool = False) -> tuple[int, Any]:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            message = {"name": name, "host": agent.name, "staged": staged}
            imported = pool.submit(self.ask, "POST", SETS, message)
            agent.answer(agent.challenge())
            return imported.result()


@pytest.fixture
def agent(server: Server, vendor: Vendor) -> Agent:
    return Agent(server, vendor).enrol()


@pytest.fixture
def admin(server: Server) -> Administrator:
    return Administrator(server)


KERNEL = (
    next(event for event in launch_events(kernel=b"update") if event.type == 0x501)
    .digests["sha256"]
    .hex()
)


def test_a_staged_update_is_previewed_exactly_and_then_activated(
    admin: Administrator, agent: Agent
) -> None:
    admin.server.choose_good_boot()
    agent.tpm.boot(launch_events(kernel=b"update"))
    agent.answer(agent.challenge())
    (component,) = (c for p, c in good_boot().slots if c in ("kernel", "tboot_policy") and p == 17)
    assert admin.add(component, KERNEL, staged=True)[0] == 200
    assert level_of(admin.server) == "untrusted"
    assert admin.preview(activate={"golden": []}) == {"host-1": ("untrusted", "trusted")}
    assert admin.preview() == {}
    assert level_of(admin.server) == "untrusted"
    status, changed = admin.ask("POST", f"{SETS}/golden/activate", {"values": []})
    assert (status, [value["staged"] for value in changed["values"]].count(True)) == (200, 0)
    assert level_of(admin.server) == "trusted"


def test_a_preview_tells_exactly_what_then_happens(
    admin: Administrator, agent: Agent, vendor: Vendor
) -> None:
    admin.server.choose_good_boot()
    other, drawn = Agent(admin.server, vendor, "host-2", SoftwareTpm(1)).enrol(), random.Random(3)
    other.tpm.boot(launch_events(kernel=b"update"))
    for one in (agent, other):
        one.answer(one.challenge())
    (component,) = (c for p, c in good_boot().slots if c in ("kernel", "tboot_policy") and p == 17)
    admin.add(component, KERNEL, staged=True)
    changed = 0
    for _ in range(15):
        (golden,) = admin.ask("GET", SETS)[1]["reference_values"]
        value = drawn.choice([one for one in golden["values"] if one["staged"] or one["pcr"] == 17])
        verb, before = "activate" if value["staged"] else "withdraw", admin.levels()
        told = admin.preview(**{verb: {"golden": [value["identifier"]]}})
        assert (
            admin.ask("POST", f"{SETS}/golden/{verb}", {"values": [value["identifier"]]})[0] == 200
        )
        after = admin.levels()
        assert told == {
            name: (before[name], after[name]) for name in before if before[name] != after[name]
        }
        changed += len(told)
        if verb == "withdraw":
            assert (
                admin.ask("POST", f"{SETS}/golden/add", {"value": {**value, "staged": True}})[0]
                == 200
            )
    assert changed > 5


def test_a_withdrawn_value_counts_at_once_for_a_silent_host(
    admin: Administrator, agent: Agent
) -> None:
    admin.server.choose_good_boot()
    agent.answer(agent.challenge())
    (mle,) = (value.identifier for value in good_boot().values if value.component == "mle")
    assert admin.preview(withdraw={"golden": [mle]}) == {"host-1": ("trusted", "untrusted")}
    assert level_of(admin.server) == "trusted"
    assert admin.ask("POST", f"{SETS}/golden/withdraw", {"values": [mle]})[0] == 200
    assert level_of(admin.server) == "untrusted"


def test_a_staged_import_judges_nobody(admin: Administrator, agent: Agent) -> None:
    agent.answer(agent.challenge())
    status, imported = admin.import_from(agent, "golden", staged=True)
    assert (status, all(value["staged"] for value in imported["values"])) == (200, True)
    assert level_of(admin.server) == "unknown"
    assert admin.preview(activate={"golden": []}) == {"host-1": ("unknown", "trusted")}


def test_a_second_golden_host_adds_to_the_set(admin: Administrator, agent: Agent) -> None:
    admin.server.choose_good_boot()
    agent.tpm.boot(launch_events(kernel=b"update"))
    agent.answer(agent.challenge())
    status, merged = admin.import_from(agent, "golden")
    assert (status, len(merged["values"])) == (200, len(good_boot().values) + 1)
    assert level_of(admin.server) == "trusted"


def test_a_host_with_faults_of_its_own_cannot_be_golden(admin: Administrator, agent: Agent) -> None:
    agent.answer(agent.challenge())
    agent.tpm.clock -= 500
    status, answer = admin.import_from(agent, "golden")
    assert (status, "clock went back" in answer["reason"]) == (409, True)


@pytest.mark.parametrize(
    ("path", "message", "status"),
    [
        ("/golden/add", {"value": {}}, 400),
        ("/golden/withdraw", {"values": []}, 400),
        ("/golden/withdraw", {"values": ["0" * 12]}, 404),
        ("/golden/activate", {"values": ["x"]}, 400),
        ("/silver/activate", {"values": []}, 404),
        ("/a%2Fb/activate", {"values": []}, 400),
        ("", {"name": "a b", "host": "host-1"}, 400),
        ("", {"name": "x", "host": "no\0host"}, 400),
        ("", {"name": "x", "host": "no host"}, 403),
        ("", {"name": "x", "host": "nobody"}, 404),
    ],
)
def test_a_wrong_change_changes_nothing(
    admin: Administrator, path: str, message: Any, status: int
) -> None:
    admin.server.choose_good_boot()
    before = admin.ask("GET", SETS)
    assert admin.ask("POST", SETS + path, message)[0] == status
    assert admin.ask("GET", SETS) == before


def test_a_preview_of_what_is_not_there_is_refused(admin: Administrator) -> None:
    assert admin.ask("POST", "/v1/reference-preview", {"activate": {"silver": []}})[0] == 404
    assert admin.ask("POST", "/v1/reference-preview", {"withdraw": []})[0] == 400


def test_a_corrupt_set_takes_no_host_out(
    admin: Administrator, agent: Agent, database: Database
) -> None:
    admin.server.choose_good_boot()
    agent.answer(agent.challenge())
    database.transact(lambda c: c.execute(sa.text("UPDATE reference_sets SET content = '{'")))
    database.transact(lambda c: c.execute(sa.text("UPDATE policy SET version = version + 1")))
    assert level_of(admin.server) == "unknown"
    assert admin.ask("GET", SETS)[1] == {"reference_values": [], "unreadable": ["golden"]}
    assert (
        "unreadable_reference_sets 1.0"
        in admin.server.call("GET", "/metrics", token=admin.token).text
    )
    assert admin.ask("DELETE", f"{SETS}/golden")[0] == 200


def test_a_token_for_hosts_makes_tokens_that_enrol(server: Server, vendor: Vendor) -> None:
    made = server.call(
        "POST", "/v1/enrolment/tokens", {"host": "host-7"}, token=server.token("enrolment")
    )
    assert made.status_code == 200
    assert Agent(server, vendor, "host-7").begin(made.json()["token"]).status_code == 200
    wrong = server.call(
        "POST", "/v1/enrolment/tokens", {"host": "No Host"}, token=server.token("enrolment")
    )
    assert wrong.json()["code"] == "host_name"


def test_a_replaced_tpm_gets_its_name_back(
    server: Server, agent: Agent, authority: Authority
) -> None:
    removed = server.call("DELETE", "/v1/hosts/host-1", token=server.token("operator"))
    assert removed.status_code == 200
    assert server.call("POST", "/v1/challenge", {}, cert=agent.certificate).status_code == 401
    again = server.call("DELETE", "/v1/hosts/host-1", token=server.token("operator"))
    assert again.status_code == 404
