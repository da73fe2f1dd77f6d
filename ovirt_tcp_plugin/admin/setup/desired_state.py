# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the administrator wants setup to reach. Pure."""

from __future__ import annotations

import dataclasses
from typing import Optional

from ovirt_tcp_plugin.placement.decision import Scope

DEFAULT_POLICY = "ovirt-tcp"


@dataclasses.dataclass(frozen=True)
class DesiredState:
    """What the administrator asked for.

    Attributes:
        ha_retry_s: seconds until the engine tries a highly available VM again that it could not
            restart; None leaves the engine's value.
        policy: name of the scheduling policy to make.
        copy_from: name of the policy that it is a copy of; empty for that of the clusters.
        scope: who needs trust; None for all VMs, or what an existing policy says.
        clusters: names of the clusters that become trusted pools.
        broker_user: as whom the broker logs in.
    """

    ha_retry_s: Optional[int] = None
    policy: str = DEFAULT_POLICY
    copy_from: str = ""
    scope: Optional[Scope] = None
    clusters: tuple[str, ...] = ()
    broker_user: str = ""
