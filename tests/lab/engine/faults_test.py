# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The switches for what goes wrong, in the process and over the control port."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine import faults
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault, Faults
from tests.lab.engine.peers import Lab


def switch(lab: Lab, changes: Mapping[str, Any]) -> None:
    url = f"http://127.0.0.1:{lab.engine.web.control_port}/faults"
    with urllib.request.urlopen(url, json.dumps(changes).encode(), timeout=10) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("changes", [{"unknown": []}, {"answers": [{"kind": "odd"}]}, {"late_events": {"x": 1}}])
def test_what_is_no_switch_is_refused(changes: Mapping[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Faults().switch(changes)


def test_the_control_port_switches_them_on_and_off(lab: Lab) -> None:
    switch(lab, {"lost_events": [13], "late_events": {"153": 2}, "refused_maintenance": {"h1": "no"}})
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
