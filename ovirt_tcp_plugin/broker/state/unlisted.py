# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a listing does not show since the engine failed at it, and what is told of that. Pure."""

from __future__ import annotations

from ovirt_tcp_plugin.placement.inventory import Listing, Notice

_SEE_LOG = "See why in /var/log/ovirt-engine/engine.log at the engine."


def notices(listing: Listing) -> list[Notice]:
    """Return what is to be reported of the objects that a listing does not show."""
    reports: list[Notice] = []
    if listing.nameless_vms:
        text = (
            f"The engine fails to list {listing.nameless_vms} VMs. A VM that is not listed counts "
            f"as marked. {_SEE_LOG}"
        )
        reports.append(Notice("vms_unlisted", "error", text))
    if listing.nameless_hosts:
        text = (
            f"The engine fails to list {listing.nameless_hosts} hosts. A host that is not listed "
            f"stays as it was, and a new one counts as not Up. {_SEE_LOG}"
        )
        reports.append(Notice("hosts_unlisted", "error", text))
    for cluster_id in sorted(listing.unreadable_walls):
        text = (
            f"The engine fails to list the affinity groups of cluster {cluster_id}. Its wall is "
            f"taken to be as it was last seen. {_SEE_LOG}"
        )
        key = f"wall_unreadable {cluster_id}"
        reports.append(Notice(key, "error", text, cluster_id=cluster_id))
    return reports
