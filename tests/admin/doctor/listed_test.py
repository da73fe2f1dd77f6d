# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Objects that the engine fails to show."""

from __future__ import annotations

import dataclasses

import pytest

from ovirt_tcp_plugin.admin.doctor import listed
from ovirt_tcp_plugin.admin.doctor.observations import ObservedSite
from ovirt_tcp_plugin.placement.inventory import Listing

WHOLE = Listing((), (), (), (), ())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"nameless_vms": 2, "unreadable_vms": frozenset({"v"})}, "fails to show 3 VMs:"),
        ({"nameless_hosts": 1}, "fails to show 1 hosts:"),
        ({"unreadable_walls": frozenset({"c"})}, "fails to show 1 clusters' affinity groups:"),
        ({"nameless_vms": 1, "nameless_hosts": 1}, "fails to show 1 VMs, 1 hosts:"),
    ],
)
def test_what_the_engine_does_not_show_is_told(changes: dict[str, object], text: str) -> None:
    site = ObservedSite(dataclasses.replace(WHOLE, **changes), {}, frozenset())
    (finding,) = listed.judge(site)
    assert finding.code == "unlisted"
    assert text in finding.text


def test_a_whole_list_is_well() -> None:
    assert list(listed.judge(ObservedSite(WHOLE, {}, frozenset()))) == []
