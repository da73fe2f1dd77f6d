# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""By which names hosts are asked for."""

from __future__ import annotations

from ovirt_tcp_plugin.broker.state.host_names import names
from ovirt_tcp_plugin.placement.inventory import Host


def test_hosts_are_asked_for_by_address_or_as_configured() -> None:
    hosts = [Host("1", "a", "A.LAB", "c1", "up"), Host("2", "b", "fd00::B", "c1", "up")]
    assert names(hosts, {"b": "node-b"}) == ({"1": "a.lab", "2": "node-b"}, frozenset())


def test_hosts_of_one_name_have_none() -> None:
    hosts = [
        Host("1", "a", "a.lab", "c1", "up"),
        Host("2", "b", "A.lab", "c1", "up"),
        Host("3", "c", "c", "c1", "up"),
    ]
    assert names(hosts, {}) == ({"3": "c"}, frozenset({"1", "2"}))
    assert names(hosts, {"b": "C"}) == ({"1": "a.lab"}, frozenset({"2", "3"}))
