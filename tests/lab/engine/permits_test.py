# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Roles: what a user may not do is refused, and a role with just what it needs is enough."""

from __future__ import annotations

from collections.abc import Callable

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from tests.lab.engine.conftest import Connect
from tests.lab.engine.peers import Lab, Session
from tests.site_pki import PASSWORD


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(directory={"broker@internal": PASSWORD})


def grant(lab: Lab, *permits: str) -> str:
    """Give the broker's user a role; return its id."""
    rows = [types.Permit(id=uid) for uid in permits]
    role = lab.system.roles_service().add(
        types.Role(name="ovirt-tcp", administrative=True, permits=rows)
    )
    user = next(
        user
        for user in lab.system.users_service().list()
        if user.user_name == "broker@internal-authz"
    )
    permission = types.Permission(role=types.Role(id=role.id), user=types.User(id=user.id))
    lab.system.permissions_service().add(permission)
    return str(role.id)


def test_who_may_not_log_in_gets_a_page_that_the_sdk_cannot_read(
    lab: Lab, connect: Connect
) -> None:
    connection = connect(lab.engine, username="broker@internal")
    with pytest.raises(ovirtsdk4.Error, match="isn't the expected XML"):
        connection.test(raise_exception=True)
    text = (
        "The user broker@internal-authz with profile [internal] is not authorized to perform login"
    )
    page = f"<html><head><title>Error</title></head><body>{text}</body></html>"
    assert lab.ask("GET", "", token=connection.authenticate()) == (401, page)


def test_a_session_outlives_the_role_that_let_it_in(lab: Lab, connect: Connect) -> None:
    grant(lab, "1300")
    connection = connect(lab.engine, username="broker@internal")
    connection.system_service().hosts_service().list()
    for user in lab.engine.model.users.values():
        user.roles = user.roles if user.name == "admin@internal" else set()
    connection.system_service().hosts_service().list()
    lab.restart()
    with pytest.raises(ovirtsdk4.Error, match="isn't the expected XML"):
        connection.system_service().hosts_service().list()


class TestPasswords:
    def test_one_that_is_wrong_is_a_bad_request(self, lab: Lab) -> None:
        text = "Cannot authenticate user 'admin@internal': Unable to log in."
        status, answer = lab.log_in("admin@internal", "wrong")
        assert (status, answer["error_code"]) == (400, "access_denied")
        assert answer["error"].startswith(text)

    def test_a_token_that_is_no_good_is_a_page(self, lab: Lab) -> None:
        status, answer = lab.ask("GET", "hosts", token="none")
        assert (status, answer[:6]) == (401, "<html>")

    def test_five_that_are_wrong_lock_the_account_for_an_hour(self, lab: Lab) -> None:
        for _ in range(5):
            lab.log_in("broker@internal", "wrong")
        assert lab.log_in("broker@internal", PASSWORD)[0] == 400
        lab.pass_time(3599)
        assert lab.log_in("broker@internal", PASSWORD)[0] == 400
        lab.pass_time(2)
        assert lab.log_in("broker@internal", PASSWORD)[0] == 200


def test_what_the_role_lacks_is_refused(lab: Lab, connect: Connect) -> None:
    grant(lab, "1300", "1400")
    session = Session(connect(lab.engine, username="broker@internal"))
    with pytest.raises(ovirtsdk4.AuthError) as refused:
        session.host_service("h1").deactivate()
    assert refused.value.code == 403
    assert lab.status("h1") == "up"
    error = types.ExternalStatus.ERROR
    event = types.Event(
        origin="x", custom_id=1, severity=types.LogSeverity.ERROR, description="text"
    )
    session.system.events_service().add(event)
    event.custom_id, event.host = 2, types.Host(id=lab.host("h1").id, external_status=error)
    with pytest.raises(ovirtsdk4.AuthError):
        session.system.events_service().add(event)
    for action in (
        session.vm_service("vm2").start,
        session.vm_service("vm1").stop,
        session.vm_service("vm1").remove,
    ):
        with pytest.raises(ovirtsdk4.AuthError):
            action()


def test_a_role_can_be_read_and_one_in_use_stays(lab: Lab) -> None:
    uid = grant(lab, "1300", "103")
    permits = lab.system.roles_service().role_service(uid).permits_service().list()
    assert {permit.name for permit in permits} == {"login", "manipulate_host"}
    with pytest.raises(ovirtsdk4.Error, match="still associated with Role"):
        lab.system.roles_service().role_service(uid).remove()
    super_user = next(role for role in lab.system.roles_service().list() if not role.mutable)
    with pytest.raises(ovirtsdk4.Error, match="system Role"):
        lab.system.roles_service().role_service(super_user.id).remove()


def test_a_role_without_permits_is_refused(lab: Lab) -> None:
    with pytest.raises(
        ovirtsdk4.Error, match=r"Parameter 'role\.permits\.id' is mandatory but was not provided"
    ):
        grant(lab)


def test_a_role_with_an_unknown_permit_is_refused_with_a_bare_text(lab: Lab) -> None:
    role = '<role><name>r</name><permits><permit id="99999"/></permits></role>'
    assert lab.ask("POST", "roles", role) == (400, "99999 is not a valid permit ID.")


def test_a_name_of_a_role_that_is_taken_is_a_conflict(lab: Lab) -> None:
    grant(lab, "1300")
    with pytest.raises(ovirtsdk4.Error, match="The Role name is already in use") as refused:
        grant(lab, "1300")
    assert refused.value.code == 409
