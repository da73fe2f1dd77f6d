# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The role's permits under the engine's own names."""

from __future__ import annotations

from ovirt_tcp_plugin.lab.engine import permits
from ovirt_tcp_plugin.placement.inventory import PERMITS


def test_the_role_has_the_permits_that_the_engine_calls_so() -> None:
    assert {uid: permits.PERMITS[uid] for uid in PERMITS} == PERMITS
