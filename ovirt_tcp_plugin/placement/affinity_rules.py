# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity groups of administrators, as far as they take hosts away from VMs. Pure."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class AffinityRule:
    """One of the two rules of an affinity group."""

    enabled: bool = False
    enforcing: bool = False
    positive: bool = True

    @property
    def binds(self) -> bool:
        """Whether it holds always, and not only if there is nothing better."""
        return self.enabled and self.enforcing

    @property
    def forbids(self) -> bool:
        """Whether it always keeps its members apart."""
        return self.binds and not self.positive

    @property
    def requires(self) -> bool:
        """Whether it always keeps its members together."""
        return self.binds and self.positive


@dataclasses.dataclass(frozen=True)
class EnforcingGroup:
    """An affinity group of a cluster. The members are those of its labels, too."""

    id: str
    name: str
    cluster_id: str
    hosts_rule: AffinityRule = AffinityRule()
    vms_rule: AffinityRule = AffinityRule()
    host_ids: frozenset[str] = frozenset()
    vm_ids: frozenset[str] = frozenset()
