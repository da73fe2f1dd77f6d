# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which affinity groups of administrators contradict the wall of a trusted pool. Pure.

`setup` and `doctor` report them. The wall is an enforcing positive rule between VMs and hosts. Both
an enforcing rule of the same VMs, of either sign, and a negative one between VMs take hosts away
from what the wall leaves: a VM may find no host at all, though trusted ones are Up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from ovirt_tcp_plugin.placement.affinity_rules import EnforcingGroup
from ovirt_tcp_plugin.placement.inventory import Vm, bears_wall_name
from ovirt_tcp_plugin.placement.pools import Pool, exempt_vms, needs_trust

# So many names of VMs are shown; the group itself has the others.
MAX_NAMES = 10


@dataclasses.dataclass(frozen=True)
class AffinityConflict:
    """A group that contradicts the wall of its cluster, in a sentence, and what to do about it.

    Attributes:
        of_hosts: it is between VMs and hosts, as the wall is.
        forbids: it keeps VMs off hosts. The engine refuses every edit of a group as a whole in that
            cluster while such a rule has a VM and a host of the wall.
    """

    cluster_id: str
    group_id: str
    group_name: str
    text: str
    next_step: str
    of_hosts: bool = False
    forbids: bool = False


def conflicts(
    pools: Mapping[str, Pool],
    vms: Iterable[Vm],
    groups: Iterable[EnforcingGroup],
    exempt: Collection[str] = (),
) -> list[AffinityConflict]:
    """Return the groups that may leave a VM of a pool without a host.

    Args:
        pools: the trusted pools by cluster id.
        exempt: ids of VMs that may run anywhere.
    """
    vms = list(vms)
    exempt_ids = exempt_vms(exempt, vms)
    bound = [vm for vm in vms if needs_trust(vm, pools.get(vm.cluster_id), exempt_ids)]
    contradictions: list[AffinityConflict] = []
    for group in groups:
        names: list[str] = []
        for vm in bound:
            if vm.id in group.vm_ids and vm.cluster_id == group.cluster_id:
                names.append(vm.name)
        if names and not bears_wall_name(group.name, group.cluster_id):
            contradictions += _of_group(pools[group.cluster_id], group, sorted(names))
    return contradictions


def _of_group(pool: Pool, group: EnforcingGroup, names: list[str]) -> Iterable[AffinityConflict]:
    """Return how a group contradicts the wall; `names` are those of its VMs that need trust."""
    subject = f"Affinity group {group.name} of cluster {pool.name} keeps"
    shown = ", ".join(names[:MAX_NAMES])
    if len(names) > MAX_NAMES:
        shown += f" and {len(names) - MAX_NAMES} more"
    if group.hosts_rule.forbids and group.host_ids:
        text = (
            f"{subject} {shown} off {len(group.host_ids)} hosts by an enforcing negative rule: when"
            " no other host is trusted, these VMs do not start."
        )
        step = "make the rule not enforcing, or take the VMs out of the group"
        yield _conflict(group, text, step, of_hosts=True, forbids=True)
    if group.hosts_rule.requires and group.host_ids:
        text = (
            f"{subject} {shown} on {len(group.host_ids)} hosts by an enforcing positive rule: when"
            " none of them is trusted, these VMs do not start."
        )
        step = "make the rule not enforcing, or see that hosts of the group are trusted"
        yield _conflict(group, text, step, of_hosts=True)
    if group.vms_rule.forbids and len(names) > 1:
        text = (
            f"{subject} {shown} apart by an enforcing negative rule: when fewer than {len(names)}"
            " hosts are trusted, some of these VMs do not start."
        )
        step = "make the rule not enforcing, or have more trusted hosts"
        yield _conflict(group, text, step)


def _conflict(
    group: EnforcingGroup, text: str, step: str, of_hosts: bool = False, forbids: bool = False
) -> AffinityConflict:
    return AffinityConflict(group.cluster_id, group.id, group.name, text, step, of_hosts, forbids)
