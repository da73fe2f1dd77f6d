# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""By which names attestation servers know the engine's hosts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ovirt_tcp_plugin.broker.inventory import Host


def names(
    hosts: Iterable[Host], configured: Mapping[str, str]
) -> tuple[dict[str, str], frozenset[str]]:
    """Return the name to ask for by host id, and the ids of hosts that share a name.

    Hosts that share a name have none: an answer about it would be about one of them only.

    Args:
        configured: the option `host_names`, engine host name -> name at the attestation server.
    """
    name_of: dict[str, str] = {}
    for host in hosts:
        name_of[host.id] = configured.get(host.name, host.address).lower()
    ids_of: dict[str, list[str]] = {}
    for host_id, name in name_of.items():
        ids_of.setdefault(name, []).append(host_id)
    shared: set[str] = set()
    for host_ids in ids_of.values():
        if len(host_ids) > 1:
            shared.update(host_ids)
    for host_id in shared:
        del name_of[host_id]
    return name_of, frozenset(shared)
