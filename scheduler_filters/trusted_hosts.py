# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The filter unit TrustedHosts for the old ovirt-scheduler-proxy, which oVirt dropped in 4.5.

The proxy runs `TrustedHosts().do_filter(...)` in a process of its own, reads one list from stdout,
and keeps all hosts when the process fails or writes a single line to stderr. So this prints exactly
one list, whatever happens, and nothing else. `ovirt-tcp-filterd` is the same filter without a
process for each call; use it where you can.
"""

from __future__ import annotations

import logging

# A warning without a handler goes to stderr, and would make the proxy keep all hosts.
logging.getLogger().addHandler(logging.NullHandler())


class TrustedHosts:
    """The unit. The proxy shows the docstring of `do_filter` as its description."""

    properties_validation = "trust_scope=^(all_vms|marked_vms)$"

    def do_filter(self, hosts_ids: list[str], vm_id: str, args_map: dict[str, str]) -> None:
        """Runs VMs only on hosts whose boot was measured and appraised (ovirt-tcp)"""
        try:
            accepted = _accept(hosts_ids, vm_id, args_map)
        except Exception:  # noqa: BLE001 - the edge: a traceback on stderr would let every host pass
            accepted = []
        print(accepted)


def _accept(hosts_ids: list[str], vm_id: str, args_map: dict[str, str]) -> list[str]:
    from ovirt_tcp_plugin import clock, config
    from ovirt_tcp_plugin.scheduler import snapshots, trusted_hosts
    from ovirt_tcp_plugin.scheduler.settings import Settings

    options = config.load(Settings, "filterd", config.DEFAULT_DIRECTORY).snapshots
    owners = snapshots.believed_owners(options.owner)
    directory = snapshots.SnapshotDirectory(options.directory, owners)
    directory.load_all()
    found = trusted_hosts.accept(
        directory.by_host, hosts_ids, vm_id, dict(args_map), clock.boottime_ms()
    )
    return list(found.hosts)
