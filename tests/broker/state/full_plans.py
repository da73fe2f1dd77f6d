# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The plans for all walls, whether anything may have changed or not."""

from __future__ import annotations

from ovirt_tcp_plugin.broker.state.settled_walls import SettledWalls
from ovirt_tcp_plugin.broker.state.wall_plan import WallPlan
from ovirt_tcp_plugin.broker.state.walls import Walls


def full_plans(walls: Walls) -> list[WallPlan]:
    """Return the plan for each wall as if none was known to be in order; nothing is noted."""
    settled = walls._settled
    walls._settled = SettledWalls()
    try:
        return walls.due_plans()
    finally:
        walls._settled = settled
