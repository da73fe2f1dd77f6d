# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the engine shows of hosts, and what ends or begins with it. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ovirt_tcp_plugin.broker.state.exemptions import ExemptionWatch
from ovirt_tcp_plugin.broker.state.inventory_view import Place
from ovirt_tcp_plugin.broker.state.quarantine_controller import QuarantineController
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.broker.state.verdicts import Changes
from ovirt_tcp_plugin.placement.inventory import Host, Notice


class HostNews:
    """Not thread-safe: the caller holds the lock of the broker's state.

    Args:
        names: the option `host_names`.
    """

    def __init__(
        self,
        shared: SharedState,
        quarantine: QuarantineController,
        exemptions: ExemptionWatch,
        names: Mapping[str, str],
    ) -> None:
        self._shared = shared
        self._inventory = shared.inventory
        self._verdicts = shared.verdicts
        self._changes = shared.changes
        self._quarantine = quarantine
        self._exemptions = exemptions
        self._names = names
        self._polls = 0
        # Whether the known hosts are all there are: what was saved of others counts until then.
        self._has_all = False
        # Whether what was saved of others was forgotten.
        self._are_others_forgotten = False
        # What the last poll showed, and the hosts that were known then.
        self._last_poll: Sequence[Host] = ()
        self._hosts_then: object = None
        self._places: Mapping[str, Place] = {}
        # Pool hosts that share their name at the attestation server, as reported.
        self._sharing: frozenset[str] = frozenset()

    def polls(self) -> int:
        """Return how often the hosts that are not Up were listed."""
        return self._polls

    # Kinds of news: each returns the ids of the pool hosts that came Up or moved

    def take_listing(
        self, hosts: Sequence[Host], polls: int, complete: bool = True
    ) -> tuple[str, ...]:
        """Take the hosts of a listing into account, which took its time.

        Args:
            polls: `polls` of when the reading began.
            complete: False if the engine failed to show some. Known ones are as the polls show
                them, then.
        """
        if polls != self._polls:
            hosts = self._as_polled(hosts)
        hidden: Sequence[Host] = ()
        if not hosts:
            hidden = self._inventory.hosts_none_up()
        elif not complete:
            hidden = list(self._inventory.hosts.values())
        self._has_all = self._has_all or (bool(hosts) and complete)
        return self._take(_with_hidden(hosts, hidden))

    def take_list(self, hosts: Sequence[Host], complete: bool = True) -> tuple[str, ...]:
        """Take a list of all hosts into account, which was read in one go in place of a poll.

        An empty list is no evidence that all are gone, with what is known of them; but nobody
        counts as Up by it.

        Args:
            complete: False if the engine failed to show some. Known ones are not Up, then.
        """
        self._polls += 1
        is_whole = bool(hosts) and complete
        hidden: Sequence[Host] = () if is_whole else self._inventory.hosts_none_up()
        self._has_all = self._has_all or is_whole
        return self._take(_with_hidden(hosts, hidden))

    def take_poll(self, hosts: Sequence[Host]) -> tuple[str, ...]:
        """Take a list of the hosts that are not Up into account: every other known one is."""
        self._polls += 1
        if self._hosts_then is self._inventory.hosts and self._last_poll == hosts:
            self._take_no_change()
            return ()
        came_up = self._take(self._inventory.as_polled(hosts))
        self._last_poll = hosts
        self._hosts_then = self._inventory.hosts
        return came_up

    def restarted(self, host_id: str) -> None:
        """The host left Up, as an event says, whatever the listings show."""
        self._verdicts.restarted(host_id, self._shared.clock.now_ms())
        self._changes.touch(worse=True, pools=self._inventory.pools_of([host_id]))

    # What follows

    def _take(self, hosts: Sequence[Host]) -> tuple[str, ...]:
        """Take all known hosts into account as they are now."""
        now_ms = self._shared.clock.now_ms()
        changed = self._inventory.changed_statuses(hosts)
        if changed is not None and self._has_all is self._are_others_forgotten:
            # Another pool may have them: what was listed is perhaps the first to show it.
            self._tell_shared_names()
            return self._take_statuses(changed, now_ms)
        self._inventory.see_hosts(hosts, self._names)
        self._tell_shared_names()
        up = {host.id: host.up for host in hosts}
        changes = self._verdicts.observe(up, now_ms, self._has_all)
        self._are_others_forgotten = self._has_all
        moved = self._restart_moved(now_ms)
        came_up = (*self._take_changes(changes, now_ms), *moved)
        return self._in_pools(came_up)

    def _take_statuses(self, changed: Sequence[Host], now_ms: int) -> tuple[str, ...]:
        """Take new statuses of known hosts into account; return who came Up, as `_take` does."""
        self._inventory.see_statuses(changed)
        changes = self._verdicts.observe_some({host.id: host.up for host in changed}, now_ms)
        return self._in_pools(self._take_changes(changes, now_ms))

    def _in_pools(self, host_ids: Iterable[str]) -> tuple[str, ...]:
        """Return those of these hosts that are in a trusted pool."""
        return tuple(host_id for host_id in host_ids if self._inventory.pool_of(host_id))

    def _take_changes(self, changes: Changes, now_ms: int) -> tuple[str, ...]:
        """Have all parts take note of which hosts came Up, left it, or are gone.

        Returns:
            the ids of those that came Up.
        """
        self._verdicts.look_again()
        self._quarantine.observe(changes.came_up, now_ms, self._has_all)
        # One of ours may have attested well a moment before it was seen to be away, which counts
        # for nothing: it would wait for its next turn in maintenance.
        self._verdicts.ask_soon(self._quarantine.ours(changes.left_up), now_ms)
        self._tell_exemptions(now_ms)
        self._show_changes(changes)
        return changes.came_up

    def _take_no_change(self) -> None:
        """Look at what depends on the time, and on VMs."""
        now_ms = self._shared.clock.now_ms()
        self._quarantine.observe((), now_ms, self._has_all)
        self._tell_exemptions(now_ms)

    def _tell_exemptions(self, now_ms: int) -> None:
        for notice in self._exemptions.observe(now_ms):
            self._shared.reporter.tell(notice)

    def _as_polled(self, hosts: Sequence[Host]) -> list[Host]:
        """Return hosts of an older list with the statuses that are known of them."""
        merged: list[Host] = []
        for host in hosts:
            known = self._inventory.hosts.get(host.id)
            if known is None:
                merged.append(host)
            else:
                status = known.status
                detail = known.status_detail
                merged.append(dataclasses.replace(host, status=status, status_detail=detail))
        return merged

    def _tell_shared_names(self) -> None:
        """Report the pool hosts that lost their trust because another host got their name."""
        shared_names = self._inventory.shared_names
        sharing = frozenset(uid for uid in shared_names if self._inventory.pool_of(uid))
        for host_id in sorted(sharing - self._sharing):
            host = self._inventory.hosts[host_id]
            text = (
                f"Host {host.name} has the same name at the attestation server as another host of "
                f"this engine ({host.address}), in a trusted pool or not, so it is not trusted. "
                "Remove the other host, or give the two different names in pools.host_names."
            )
            notice = Notice(f"name_shared {host_id}", "error", text, host_id=host_id)
            self._shared.reporter.tell(notice)
        if sharing - self._sharing:
            self._changes.touch(worse=True, pools=self._inventory.pools_of(sharing))
        self._sharing = sharing

    def _restart_moved(self, now_ms: int) -> list[str]:
        """Have hosts in another cluster or of another name attest again: a verdict is of one place.

        Returns:
            the ids of those that are Up.
        """
        up: list[str] = []
        before = self._places
        self._places = self._inventory.places()
        for host_id, place in self._places.items():
            if before.get(host_id, place) == place:
                continue
            self._verdicts.restarted(host_id, now_ms)
            self._changes.touch(worse=True)
            if self._inventory.hosts[host_id].up:
                up.append(host_id)
        return up

    def _show_changes(self, changes: Changes) -> None:
        """Have walls and snapshots show which hosts came Up, left it, or are gone."""
        if not (changes.came_up or changes.left_up or changes.removed):
            return
        pools = None
        if not changes.removed:
            pools = self._inventory.pools_of([*changes.came_up, *changes.left_up])
        self._changes.touch(worse=bool(changes.left_up or changes.removed), pools=pools)
        self._shared.startup.keep(self._inventory.hosts)
        self._shared.reporter.note_hosts(changes)


def _with_hidden(hosts: Sequence[Host], hidden: Sequence[Host]) -> list[Host]:
    """Return the hosts of a list, and those of the hidden ones that are not in it."""
    shown = {host.id for host in hosts}
    return [*hosts, *(host for host in hidden if host.id not in shown)]
