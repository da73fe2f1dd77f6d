# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The switches for what goes wrong, in the process and over the control port."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any, Optional

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine import faults
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault, Faults
from tests.lab.engine.peers import Lab


def control(lab: Lab, what: str, message: Optional[Mapping[str, Any]] = None) -> Any:
    url = f"http://127.0.0.1:{lab.engine.web.control_port}/{what}"
    body = None if message is None else json.dumps(message).encode()
    with urllib.request.urlopen(url, body, timeout=10) as answer:
        return json.load(answer)["answer"]


def switch(lab: Lab, changes: Mapping[str, Any]) -> None:
    control(lab, "faults", changes)


@pytest.mark.parametrize(
    "changes", [{"unknown": []}, {"answers": [{"kind": "odd"}]}, {"late_events": {"x": 1}}]
)
def test_what_is_no_switch_is_refused(changes: Mapping[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Faults().switch(changes)


def test_the_control_port_switches_them_on_and_off(lab: Lab) -> None:
    switch(
        lab, {"lost_events": [13], "late_events": {"153": 2}, "refused_maintenance": {"h1": "no"}}
    )
    assert (lab.engine.faults.lost_events, lab.engine.faults.late_events) == ({13}, {153: 2.0})
    with pytest.raises(ovirtsdk4.Error, match="no"):
        lab.session.host_service("h1").deactivate()
    switch(lab, {"refused_maintenance": {}})
    lab.session.host_service("h1").deactivate()


@pytest.mark.parametrize("kind", [faults.HTML, faults.BROKEN, faults.GARBAGE])
def test_an_answer_goes_wrong_as_often_as_told(lab: Lab, kind: str) -> None:
    switch(lab, {"answers": [{"kind": kind, "verb": "GET", "path": "api/hosts", "times": 2}]})
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017 - the SDK's readers raise whatever comes to them
            lab.system.hosts_service().list()
    assert len(lab.system.hosts_service().list()) == 3


def test_other_requests_are_answered(lab: Lab) -> None:
    lab.engine.faults.answers = [AnswerFault(faults.BROKEN, "POST", "api/hosts/.*")]
    assert len(lab.system.hosts_service().list()) == 3
    with pytest.raises(ovirtsdk4.Error, match="Internal Engine Error"):
        lab.session.host_service("h1").deactivate()


def test_a_log_in_may_fail_too(lab: Lab) -> None:
    lab.engine.faults.answers = [AnswerFault(faults.HTML, path="sso/oauth/token")]
    with pytest.raises(ovirtsdk4.Error):
        lab.system.hosts_service().list()
    assert len(lab.system.hosts_service().list()) == 3


def test_the_control_port_moves_the_power_switch_and_shows_what_no_engine_would(lab: Lab) -> None:
    control(lab, "power", {"host": "h1", "powered": False})
    lab.pass_time(70)
    lab.session.vm_service("vm2").start()
    state = control(lab, "state")
    assert state["hosts"] == {"h1": "non_responsive", "h2": "up", "h3": "up"}
    assert state["vms"] == {"vm1": None, "vm2": "h2"}
    assert [entry["chosen"] for entry in control(lab, "journal")] == ["h2"]
    assert control(lab, "calls")["POST vms/{}/(start|stop|shutdown|suspend|migrate)"] == 1
    control(lab, "restart", {"seconds": 5})
    assert lab.engine.away_until
