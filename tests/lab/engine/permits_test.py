# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Roles: what a user may not do is refused, and a role with just what it needs is enough."""

from __future__ import annotations

from collections.abc import Callable

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from tests.lab.engine.conftest import PASSWORD, Connect
from tests.lab.engine.peers import Lab, Session


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(directory={"broker@internal": PASSWORD})


def grant(lab: Lab, *permits: str) -> str:
    """Give the broker's user a role; return its id."""
    given = [types.Permit(id=uid) for uid in permits]
    role = lab.system.roles_service().add(types.Role(name="ovirt-tcp", administrative=True, permits=given))
    user = next(one for one in lab.system.users_service().list() if one.user_name == "broker@internal-authz")
    permission = types.Permission(role=types.Role(id=role.id), user=types.User(id=user.id))
    lab.system.permissions_service().add(permission)
    return str(role.id)


def test_who_has_no_role_cannot_log_in(lab: Lab, connect: Connect) -> None:
    with pytest.raises(ovirtsdk4.AuthError):
        connect(lab.engine, username="broker@internal").test(raise_exception=True)


def test_what_the_role_lacks_is_refused(lab: Lab, connect: Connect) -> None:
    grant(lab, "1300", "1400")
    session = Session(connect(lab.engine, username="broker@internal"))
    with pytest.raises(ovirtsdk4.AuthError) as refused:
        session.host_service("h1").deactivate()
    assert refused.value.code == 403
    assert lab.status("h1") == "up"
    error = types.ExternalStatus.ERROR
    event = types.Event(origin="x", custom_id=1, severity=types.LogSeverity.ERROR, description="text")
    session.system.events_service().add(event)
    event.custom_id, event.host = 2, types.Host(id=lab.host("h1").id, external_status=error)
    with pytest.raises(ovirtsdk4.AuthError):
        session.system.events_service().add(event)
    for action in (session.vm_service("vm2").start, session.vm_service("vm1").stop, session.vm_service("vm1").remove):
        with pytest.raises(ovirtsdk4.AuthError):
            action()


def test_a_role_can_be_read_and_one_in_use_stays(lab: Lab) -> None:
    uid = grant(lab, "1300", "103")
    permits = lab.system.roles_service().role_service(uid).permits_service().list()
    assert {one.name for one in permits} == {"login", "manipulate_host"}
    with pytest.raises(ovirtsdk4.Error, match="still associated with Role"):
        lab.system.roles_service().role_service(uid).remove()
    super_user = next(one for one in lab.system.roles_service().list() if not one.mutable)
    with pytest.raises(ovirtsdk4.Error, match="system Role"):
        lab.system.roles_service().role_service(super_user.id).remove()


@pytest.mark.parametrize("permits", [[], ["99999"]])
def test_a_role_without_known_permits_is_refused(lab: Lab, permits: list[str]) -> None:
    with pytest.raises(ovirtsdk4.Error, match=r"permits\.id"):
        grant(lab, *permits)
