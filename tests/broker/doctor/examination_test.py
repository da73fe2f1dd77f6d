# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The doctor as a whole: what it says of an installation that is well, of peers that are silent, and how long it takes."""

from __future__ import annotations

from tests.broker.doctor.conftest import Installation


def test_a_good_installation_is_good_and_left_alone(installation: Installation) -> None:
    calls = installation.site.engine.rest.calls
    calls.clear()
    look = installation.look()
    assert (look.bad, look.status) == ({}, 0)
    assert {call.partition(" ")[0] for call in calls} == {"GET"}
