# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the engine says of its options, its users and its guests when it is asked by name."""

from __future__ import annotations

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine.rest.options import LEVELS
from tests.lab.engine.peers import Lab

PROPERTIES = "trusted_host_flag=^(true|false)$"


def test_definitions_of_custom_properties_come_by_cluster_level(lab: Lab) -> None:
    option = lab.system.options_service().option_service("UserDefinedVMProperties")
    assert {value.version: value.value for value in option.get().values} == {
        **dict.fromkeys(LEVELS, ""),
        "4.8": PROPERTIES,
    }
    assert [(value.version, value.value) for value in option.get(version="4.8").values] == [
        ("4.8", PROPERTIES)
    ]


@pytest.mark.parametrize(
    "name", ["ExternalSchedulerEnabled", "ExternalSchedulerServiceURL", "no_such_option"]
)
def test_internal_options_are_not_found_even_by_administrators(lab: Lab, name: str) -> None:
    with pytest.raises(ovirtsdk4.NotFoundError):
        lab.system.options_service().option_service(name).get()


def test_an_unknown_level_is_not_found(lab: Lab) -> None:
    with pytest.raises(ovirtsdk4.NotFoundError):
        lab.system.options_service().option_service("UserDefinedVMProperties").get(version="3.0")


def test_a_user_finds_himself_and_his_roles(lab: Lab) -> None:
    user = lab.system.get().authenticated_user
    permission, *everyones = (
        lab.system.users_service().user_service(user.id).permissions_service().list()
    )
    assert permission.user.id == user.id
    assert {(permission.user, permission.group.id) for permission in everyones} == {
        (None, "eee00000-0000-0000-0000-123456789eee")
    }
    assert lab.system.roles_service().role_service(permission.role.id).permits_service().list()


def test_what_guests_report_is_shown_where_it_is_asked_for(lab: Lab) -> None:
    vm = next(row for row in lab.engine.model.vms.values() if row.name == "vm1")
    vm.fqdn, vm.ips = "web.lab", ("10.0.0.7",)
    (plain,) = [vm for vm in lab.system.vms_service().list() if vm.name == "vm1"]
    assert (plain.fqdn, plain.reported_devices) == ("web.lab", [])
    (whole,) = [
        vm for vm in lab.system.vms_service().list(follow="reported_devices") if vm.name == "vm1"
    ]
    assert [ip.address for device in whole.reported_devices for ip in device.ips] == ["10.0.0.7"]
