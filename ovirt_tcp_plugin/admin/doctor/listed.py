# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Does the engine show everything that it has? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail
from ovirt_tcp_plugin.admin.doctor.observations import ObservedSite


def judge(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge whether the engine fails at single objects, which it does not show then."""
    listing = site.listing
    counts = {
        "VMs": listing.nameless_vms + len(listing.unreadable_vms),
        "hosts": listing.nameless_hosts,
        "clusters' affinity groups": len(listing.unreadable_walls),
    }
    missing = [f"{count} {kind}" for kind, count in counts.items() if count]
    if missing:
        text = (
            f"The engine fails to show {', '.join(missing)}: such a VM counts as marked; such "
            "a host or wall is taken to be as it was, and a new host as not Up."
        )
        yield fail("unlisted", text, "see why in /var/log/ovirt-engine/engine.log")
