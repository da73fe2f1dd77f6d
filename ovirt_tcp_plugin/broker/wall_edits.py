# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who edited a wall that was not us? Pure. The broker puts it right all the same; this is for telling.

An edit of ours whose answer got lost looks like somebody else's. So only that is told which we would not have done: a host
let in that is not trusted, one put out that is, a VM let out that needs trust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Optional

from ovirt_tcp_plugin.broker.inventory import Group, Host, Vm, shortened


def foreign(
    known: Group, seen: Optional[Group], hosts: Iterable[Host], trusted: Callable[[str], bool], needy: Iterable[Vm]
) -> str:
    """Return what somebody else did to a wall, in words; empty for nothing.

    Args:
        known: the wall as we left it.
        seen: as the engine lists it, None if it is gone.
        hosts: the pool's.
        trusted: whether a host counts as trusted, by id.
        needy: the pool's VMs that need trust.
    """
    if seen is None:
        return "it was removed"
    return "; ".join(_changes(known, seen, hosts, trusted, needy))


def _changes(
    known: Group, seen: Group, hosts: Iterable[Host], trusted: Callable[[str], bool], needy: Iterable[Vm]
) -> Iterator[str]:
    if known.enforcing and not seen.enforcing:
        yield "it was made to stop nobody"
    if seen.host_label_ids - known.host_label_ids:
        yield "hosts were let in by a label"
    own = [(host.name, host.id) for host in hosts]
    let_in = [name for name, uid in own if uid in seen.host_ids - known.host_ids and not trusted(uid)]
    put_out = [name for name, uid in own if uid in known.host_ids - seen.host_ids and trusted(uid)]
    let_out = [vm.name for vm in needy if vm.id in known.vm_ids - seen.vm_ids]
    for names, what in ((let_in, "let in that are not trusted"), (put_out, "put out that are trusted")):
        if names:
            yield f"hosts were {what}: {shortened(names)}"
    if let_out:
        yield f"VMs were let out: {shortened(let_out)}"
