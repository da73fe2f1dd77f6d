# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0

"""Reference values over HTTPS: look at a change first, then make it.

It counts at once, for hosts that are silent, too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import random
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.messages import eventlog
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet, Value
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.reference_values import ReferenceValueService
from ovirt_tcp_plugin.verifier.settings import Appraisal
from ovirt_tcp_plugin.verifier.store import references, schema
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.web import reference_values as web_reference_values
from tests.verifier.administrator import SETS, Administrator
from tests.verifier.agent import Agent
from tests.verifier.enrolled import good_boot
from tests.verifier.live_server import Server, level_of
from tests.verifier.software_tpm import SoftwareTpm, launch_events
from tests.verifier.vendor import Vendor

pytestmark = pytest.mark.each_database

KERNEL = hashlib.sha256(b"update").hexdigest()


def test_a_staged_update_is_previewed_exactly_and_then_activated(
    admin: Administrator, agent: Agent
) -> None:
    admin.server.choose_good_boot()
    agent.tpm.boot(launch_events(kernel=b"update"))
    agent.answer(agent.challenge())
    assert admin.add("kernel", KERNEL, staged=True)[0] == 200
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
    admin.add("kernel", KERNEL, staged=True)
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


def module(measured: bytes) -> eventlog.Event:
    digest = hashlib.sha256(measured).digest()
    return eventlog.Event(17, eventlog.TBOOT_MODULE, {"sha256": digest}, b"")


def test_a_launch_without_a_kernel_is_not_golden_unless_that_is_said(
    admin: Administrator, agent: Agent
) -> None:
    """tboot measured kernel and initrd into another bank: any kernel would be good."""
    tboot_only = [event for event in launch_events() if event.type != eventlog.TBOOT_MODULE]
    agent.answer(agent.challenge())
    for events in (tboot_only, [*tboot_only, module(b"policy")]):
        agent.tpm.boot(events)
        status, answer = admin.import_from(agent, "golden", without_kernel=False)
        assert status == 409
        assert "its log tells of no kernel in bank sha256" in answer["reason"]
        assert "extpol=agile" in answer["reason"]
    agent.tpm.boot([*tboot_only, module(b"policy"), module(b"kernel")])
    assert admin.import_from(agent, "golden", without_kernel=False)[0] == 200
    agent.tpm.boot(tboot_only)
    agent.answer(agent.challenge())
    assert admin.import_from(agent, "tboot-only", without_kernel=True)[0] == 200


def test_the_parts_that_a_set_mixes_are_reported(admin: Administrator, agent: Agent) -> None:
    agent.answer(agent.challenge())
    assert admin.import_from(agent, "golden")[1]["mixtures"] == []
    agent.tpm.boot(launch_events(kernel=b"update"))
    agent.answer(agent.challenge())
    # One part with two values mixes nothing.
    assert admin.import_from(agent, "golden")[1]["mixtures"] == []
    agent.tpm.boot(launch_events(tboot=b"update", kernel=b"update"))
    agent.answer(agent.challenge())
    status, imported = admin.import_from(agent, "golden", staged=True)
    assert status == 200
    parts = [
        {"pcr": 17, "component": "kernel", "values": 2},
        {"pcr": 17, "component": "mle", "values": 2},
    ]
    assert sorted(imported["mixtures"], key=lambda part: part["component"]) == parts
    _, preview = admin.ask("POST", "/v1/reference-preview", {"activate": {"golden": []}})
    assert list(preview["mixtures"]) == ["golden"]


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


OWN_SET = ReferenceSet("oat:mine:1", host_names=("host-1",)).with_values(
    [Value("sha256", 17, "", "ab" * 32), Value("sha256", 18, "", "cd" * 32)]
)


def corrupt(server: Server, name: str) -> None:
    """Spoil a set's row, and change another one, so that everybody is judged again."""
    bad = (
        sa.update(schema.reference_sets)
        .where(schema.reference_sets.c.name == name)
        .values(content="{")
    )
    server.database.transact(lambda c: c.execute(bad))
    server.database.transact(
        lambda c: references.put(c, dataclasses.replace(good_boot(), name="unrelated"))
    )


def test_sets_and_their_version_are_of_one_moment(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Database(database_url)
    honest = references.version
    withdrawn = []

    def version(connection: Connection) -> int:
        if not withdrawn:
            withdrawn.append(other.transact(lambda c: references.remove(c, "golden")))
        return honest(connection)

    async def load_while_another_server_withdraws() -> None:
        policies = ReferenceValueService(database, Appraisal())
        monkeypatch.setattr(references, "version", version)
        await policies.at(0)
        monkeypatch.setattr(references, "version", honest)
        assert (await policies.newest()).sets == ()

    database.transact(lambda c: references.put(c, good_boot()))
    asyncio.run(load_while_another_server_withdraws())
    other.close()


def test_old_evidence_of_a_silent_host_is_not_golden(
    server: Server,
    admin: Administrator,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_reference_values, "IMPORT_WAIT_MS", 300)
    server.choose_good_boot()
    agent.boot_evil()
    assert agent.report()["level"] == "untrusted"
    server.clock.offset_ms += 3600_000
    assert admin.ask("POST", SETS, {"name": "golden", "host": "host-1"})[0] == 503


def test_a_host_whose_own_set_is_corrupt_is_not_judged_by_those_for_all(
    server: Server,
    agent: Agent,
) -> None:
    server.choose_good_boot()
    server.database.transact(lambda c: references.put(c, OWN_SET))
    assert agent.report()["level"] == "untrusted"
    corrupt(server, OWN_SET.name)
    assert level_of(server) == "unknown"


def test_a_corrupt_set_that_may_be_for_some_hosts_is_not_removed(
    server: Server,
    admin: Administrator,
) -> None:
    server.database.transact(lambda c: references.put(c, OWN_SET))
    corrupt(server, OWN_SET.name)
    assert admin.ask("DELETE", f"{SETS}/{OWN_SET.name}")[0] == 409


@pytest.mark.parametrize("staged", [1, "true", None])
def test_staged_is_true_or_false(server: Server, agent: Agent, staged: object) -> None:
    message = {"name": "golden", "host": "host-1", "staged": staged}
    assert server.call("POST", SETS, message, token=server.token("policy")).status_code == 400
