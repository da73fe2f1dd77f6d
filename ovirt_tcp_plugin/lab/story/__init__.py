# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The main job as a story: from measured boots to placements, with tampering, outages and returns.

It checks itself at each step against the engine's own journal and the roles' own interfaces. A step
is a function of the scene: `pool`, `reboots` and `outages` have them. `administrator` is who acts,
`site_view` what is seen.
"""

from __future__ import annotations

from collections.abc import Callable

from ovirt_tcp_plugin.lab.story.outages import filterd_dies, server_returns, server_stops
from ovirt_tcp_plugin.lab.story.pool import boot, enrol, place, start_pool
from ovirt_tcp_plugin.lab.story.reboots import reboot_good, reboot_tampered
from ovirt_tcp_plugin.lab.story.scene import Scene

# In the order of the story; each needs the ones before it.
STEPS: tuple[Callable[[Scene], None], ...] = (
    boot,
    enrol,
    start_pool,
    place,
    reboot_tampered,
    reboot_good,
    server_stops,
    server_returns,
    filterd_dies,
)


def play(scene: Scene) -> None:
    """Play every step. Raises StepFailed at the first that does not hold."""
    for step in STEPS:
        step(scene)
    scene.tell.end()
