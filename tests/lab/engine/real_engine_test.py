# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The simulator's answers have the structure of a real engine's, for every recorded request."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.engine import structure
from tests.lab.engine.peers import Lab, add_group, exchange, vm
from tests.site_pki import PASSWORD

RECORDED = structure.Recorded()
# Nothing that our programs ask for.
_NOT_SIMULATED = {"GET datacenters", "GET hosts/{}/affinitylabels", "GET hosts/{}/permissions"}
_PROPERTIES = "<property><name>HighUtilization</name><value>80</value></property>"


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    vms = [
        vm("vm1", "h1"),
        vm("vm2"),
        vm("marked", "h2", custom_properties={"trusted_host_flag": "true"}),
        vm("pinned", "h3", affinity="pinned", pinned_to=["h3"]),
    ]
    lab = make_lab(vms=vms, directory={"broker@internal": PASSWORD})
    add_group(lab.session.connection, [lab.session.host("h1")], [lab.session.vm("vm1")])
    return lab


def path_of(kind: str, lab: Lab) -> tuple[str, str, str]:
    """Return method, path with parameters, and document of a request of a kind."""
    verb, _, rest = kind.partition(" ")
    asked, _, outline = rest.partition(" ") if verb != "GET" else (rest, "", "")
    route, _, parameters = asked.partition("?")
    tables = lab.engine.model
    policy = _policy(lab) if verb != "GET" else next(iter(tables.policies))
    ids = {
        "clusters": next(iter(tables.clusters)),
        "affinitygroups": next(iter(tables.groups)),
        "hosts": lab.host("h1").id,
        "vms": lab.vm("vm2" if route.endswith("start") else "vm1").id,
        "roles": next(iter(tables.roles)),
        "users": next(iter(tables.users)),
        "schedulingpolicies": policy,
    }
    parts = route.split("/")
    for number, part in enumerate(parts):
        if part == "{}":
            parts[number] = ids[parts[number - 1]]
    values = {"max": "50", "from": "0"}
    pairs = []
    for parameter in parameters.split("&") if parameters else ():
        name, equal, value = parameter.partition("=")
        value = value.replace("page {}", "page 1").replace(
            "{}", "up" if "status" in value else "35"
        )
        pairs.append(f"{name}={value.replace(' ', '%20') if equal else values[name]}")
    return (
        verb,
        "/".join(parts) + ("?" + "&".join(pairs) if pairs else ""),
        _document(outline, lab, policy),
    )


def _policy(lab: Lab) -> str:
    """Return the id of a new policy with a unit that understands a property."""
    lab.session.use_policy("Default", ["98842bc5-4094-4b83-8224-7b50f86a94c9"])
    return next(uid for uid, policy in lab.engine.model.policies.items() if not policy.locked)


def _document(outline: str, lab: Lab, policy: str) -> str:
    (cluster,) = lab.engine.model.clusters
    unit = '<scheduling_policy_unit id="{}"/>'
    event = (
        "<custom_id>1</custom_id><description>text</description>"
        "<origin>x</origin><severity>error</severity>"
    )
    host = f'<host id="{lab.host("h2").id}"/>'
    return {
        "": "",
        "host": host,
        "event(cluster,custom_id,description,host,origin,severity)": (
            f'<event>{event}<cluster id="{cluster}"/>{host}</event>'
        ),
        "event(custom_id,description,host,origin,severity)": f"<event>{event}{host}</event>",
        "action": "<action/>",
        "action(async)": "<action><async>true</async></action>",
        "action(async,reason)": "<action><async>true</async><reason>why</reason></action>",
        "scheduling_policy(description,name)": (
            "<scheduling_policy><description>d</description><name>new</name></scheduling_policy>"
        ),
        "balance(scheduling_policy_unit)": (
            f"<balance>{unit.format('38440000-8cf0-14bd-c43e-10b96e4ef00a')}</balance>"
        ),
        "filter(position,scheduling_policy_unit)": (
            f"<filter><position>0</position>{unit.format('c9ddbb34-0e1d-4061-a8d7-b0893fa80932')}</filter>"
        ),
        "weight(factor,scheduling_policy_unit)": (
            f"<weight><factor>1</factor>{unit.format('591cdb81-ba67-45b4-9642-e28f61a97d57')}</weight>"
        ),
        "scheduling_policy(properties(property(name,value)))": (
            f"<scheduling_policy><properties>{_PROPERTIES}</properties></scheduling_policy>"
        ),
        "cluster(custom_scheduling_policy_properties(property(name,value)),scheduling_policy)": (
            "<cluster><custom_scheduling_policy_properties>"
            f"{_PROPERTIES}</custom_scheduling_policy_properties>"
            f'<scheduling_policy id="{policy}"/></cluster>'
        ),
    }[outline]


@pytest.mark.parametrize("kind", sorted(set(RECORDED.kinds) - _NOT_SIMULATED))
def test_an_answer_has_the_real_engines_structure(lab: Lab, kind: str) -> None:
    if kind.endswith("activate action(async)"):
        lab.session.vm_service("vm1").stop()
        lab.session.host_service("h1").deactivate()
        lab.pass_time(30)
    if kind.startswith("DELETE schedulingpolicies"):
        _policy(lab)
        next(
            iter(lab.engine.model.clusters.values())
        ).policy = "b4ed2332-a7ac-4d5f-9596-99a439cb2812"
        uid = next(uid for uid, policy in lab.engine.model.policies.items() if not policy.locked)
        verb, path, document = "DELETE", f"schedulingpolicies/{uid}", ""
    else:
        verb, path, document = path_of(kind, lab)
    bearer = {"Authorization": f"Bearer {lab.session.connection.authenticate()}"}
    address = f"/ovirt-engine/api/{path}".rstrip("/")
    status, body, content_type = exchange(lab.engine.url, verb, address, document, bearer)
    asked = structure.kind_of(verb, path.partition("?")[0], structure.query_of(path), document)
    assert asked == kind
    assert RECORDED.compare(kind, status, content_type, body) == []


def test_it_is_written_as_the_engine_writes(lab: Lab) -> None:
    _, answer = lab.ask("GET", "clusters")
    lines = answer.splitlines()
    assert lines[:2] == ['<?xml version="1.0" encoding="UTF-8" standalone="yes"?>', "<clusters>"]
    assert lines[2].startswith('    <cluster href="/ovirt-engine/api/clusters/')
    assert "        <description></description>" in lines
    assert answer.endswith("</clusters>\n")
    assert lab.ask("GET", "hosts?search=name%3Dnobody")[1].splitlines()[1:] == ["<hosts/>"]


def test_a_long_list_is_as_long_as_a_real_one(lab: Lab) -> None:
    assert len(lab.ask("GET", f"vms/{lab.vm('vm1').id}")[1]) > 9000
    assert len(lab.ask("GET", f"hosts/{lab.host('h1').id}")[1]) > 7000


class TestComparison:
    """What it finds: the comparison would be worth nothing if it found nothing."""

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (("<status>up</status>", ""), "/hosts/host/status: missing"),
            (
                ("<port>54321</port>", "<colour>red</colour>"),
                "/hosts/host/colour: not there at the real engine",
            ),
            ((' id="', ' uuid="'), "/hosts/host/@uuid: not there at the real engine"),
            (('rel="hooks"', 'rel="hook"'), "/hosts/host/link hooks: missing"),
            (("<comment></comment>", ""), "/hosts/host/comment: missing"),
        ],
    )
    def test_a_difference_is_found(self, lab: Lab, change: tuple[str, str], found: str) -> None:
        _, answer = lab.ask("GET", "hosts")
        kind, xml = "GET hosts", "application/xml;charset=UTF-8"
        assert RECORDED.compare(kind, 200, xml, answer) == []
        assert found in RECORDED.compare(kind, 200, xml, answer.replace(*change))

    def test_another_order_status_type_or_text_is_found(self, lab: Lab) -> None:
        _, answer = lab.ask("GET", "hosts")
        kind, xml = "GET hosts", "application/xml;charset=UTF-8"
        moved = answer.replace("<protocol>stomp</protocol>", "").replace(
            "<address>", "<protocol>stomp</protocol><address>"
        )
        assert any("after protocol" in text for text in RECORDED.compare(kind, 200, xml, moved))
        assert RECORDED.compare(kind, 201, xml, answer) == [f"201 {xml}, really 200 {xml}"]
        assert RECORDED.compare(kind, 200, "application/xml", answer) == [
            f"200 application/xml, really 200 {xml}"
        ]
        fault = "<fault><detail>[Nobody says so.]</detail><reason>Operation Failed</reason></fault>"
        assert RECORDED.compare(kind, 400, xml, fault) == ["refusal: [Nobody says so.]"]

    def test_a_request_that_nobody_recorded_is_found(self) -> None:
        found = RECORDED.compare("GET quotas", 200, "", "<quotas/>")
        assert found == ["no such request was recorded, and none that is like it"]
