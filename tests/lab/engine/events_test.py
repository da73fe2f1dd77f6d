# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Other people's events, and what the engine's own tell. The words are a real engine's (4.5.8)."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ovirt_tcp_plugin.lab.engine import request_documents
from tests.lab.engine.peers import Lab, add_group

NOBODY = "00000000-0000-0000-0000-000000000001"


def event(**changes: str) -> str:
    """Return an event's document; an empty text leaves an element out."""
    given = {
        "custom_id": "7",
        "description": "text",
        "origin": "ovirt-tcp",
        "severity": "error",
        **changes,
    }
    links = "".join(
        f'<{kind} id="{given.pop(kind)}"/>' for kind in ("cluster", "host", "vm") if kind in given
    )
    texts = "".join(f"<{name}>{text}</{name}>" for name, text in given.items() if text)
    return f"<event>{texts}{links}</event>"


def fault(lab: Lab, document: str) -> tuple[int, str, str]:
    status, answer = lab.ask("POST", "events", document)
    root = request_documents.parse(answer.encode())
    return status, root.findtext("reason", ""), root.findtext("detail", "")


def tags(root: ElementTree.Element) -> list[str]:
    return [element.tag for element in root]


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        (
            {"custom_id": ""},
            "Input validation failed.",
            "Parameter 'event.custom_id' is mandatory but was not provided.",
        ),
        (
            {"custom_id": "2147483648"},
            "Invalid value",
            "Value 2147483648 is greater than maximum integer 2147483647",
        ),
        (
            {"severity": "loud"},
            "Invalid value",
            "The string 'loud' isn't a valid value for the 'LogSeverity' enumerated type. "
            "Valid values are: 'normal', 'warning', 'error', 'alert'.",
        ),
        (
            {"origin": "oVirt"},
            "Operation Failed",
            "[Cannot add External Event. Illegal Origin for External Event : oVirt]",
        ),
    ],
)
def test_what_is_no_event_is_refused_in_words(
    lab: Lab, changes: dict[str, str], reason: str, detail: str
) -> None:
    assert fault(lab, event(**changes)) == (400, reason, detail)


def test_the_greatest_number_and_zero_are_custom_ids(lab: Lab) -> None:
    for custom_id in ("0", "2147483647"):
        assert lab.ask("POST", "events", event(custom_id=custom_id))[0] == 201


@pytest.mark.parametrize("kind", ["cluster", "host", "vm"])
def test_nobody_looks_whether_what_an_event_is_about_exists(lab: Lab, kind: str) -> None:
    status, answer = lab.ask("POST", "events", event(**{kind: NOBODY}))
    root = request_documents.parse(answer.encode())
    assert (status, tags(root)[-1]) == (201, kind)
    assert root.find(kind).attrib == {"href": f"/ovirt-engine/api/{kind}s/{NOBODY}", "id": NOBODY}
    assert root.find(f"{kind}/name") is None


def test_an_event_has_its_elements_in_the_engines_order(lab: Lab) -> None:
    (cluster,) = lab.engine.model.clusters
    _, answer = lab.ask("POST", "events", event(cluster=cluster, host=lab.host("h1").id))
    root = request_documents.parse(answer.encode())
    common = [
        "description",
        "code",
        "custom_id",
        "flood_rate",
        "index",
        "origin",
        "severity",
        "time",
    ]
    assert tags(root) == [*common, "cluster", "host"]
    assert (root.findtext("host/name"), root.findtext("flood_rate")) == ("h1", "30")


def test_an_edit_of_a_group_tells_who_made_it(lab: Lab) -> None:
    add_group(lab.session.connection, [], [])
    _, answer = lab.ask("GET", "events?max=1")
    root = request_documents.parse(answer.encode())[0]
    assert (
        root.findtext("description")
        == "Affinity Group group 0 was added. (User: admin@internal-authz)"
    )
    assert tags(root)[2] == "correlation_id"
    assert tags(root)[-2:] == ["cluster", "user"]


def test_an_event_of_a_vm_tells_of_everything_around_it(lab: Lab) -> None:
    lab.session.vm_service("vm2").start()
    _, answer = lab.ask("GET", "events?search=type%3D153")
    root = request_documents.parse(answer.encode())[0]
    assert tags(root)[-6:] == ["cluster", "data_center", "host", "template", "user", "vm"]


def test_a_search_that_is_no_good_finds_nothing(lab: Lab) -> None:
    status, answer = lab.ask("GET", "events?search=nonsense%3D%3D")
    assert (status, len(request_documents.parse(answer.encode()))) == (200, 0)
