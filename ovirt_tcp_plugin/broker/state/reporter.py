# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Puts notices into the outbox: dated, and with the names that people know things by. No I/O."""

from __future__ import annotations

import dataclasses

from ovirt_tcp_plugin.broker.state.clock import Clock
from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView
from ovirt_tcp_plugin.broker.state.outbox import Outbox
from ovirt_tcp_plugin.broker.state.verdicts import Changes
from ovirt_tcp_plugin.placement.inventory import Notice


class Reporter:
    """Not thread-safe: the caller holds the lock of the broker's state."""

    def __init__(self, outbox: Outbox, inventory: InventoryView, clock: Clock) -> None:
        self._outbox = outbox
        self._inventory = inventory
        self._clock = clock

    def tell(self, notice: Notice) -> None:
        """Have a notice written into the history, and the engine's events if it is one for them."""
        host = self._inventory.hosts.get(notice.host_id)
        vm = self._inventory.vms.by_id.get(notice.vm_id)
        complete = dataclasses.replace(
            notice,
            at_ms=self._clock.wall_ms(),
            host=host.name if host else "",
            vm=vm.name if vm else "",
        )
        self._outbox.put(complete)

    def note(self, code: str, text: str, host_id: str = "") -> None:
        """Have this written into the history only."""
        self.tell(Notice(code, "normal", text, host_id, event=False))

    def note_hosts(self, changes: Changes) -> None:
        """Note which hosts came Up or left it: perhaps all ten thousand at once."""
        at_ms = self._clock.wall_ms()
        for host_id in changes.came_up:
            self._note_host("came_up", "is Up", host_id, at_ms)
        for host_id in changes.left_up:
            self._note_host("left_up", "is not Up any more", host_id, at_ms)

    def _note_host(self, code: str, status: str, host_id: str, at_ms: int) -> None:
        name = self._inventory.host_name(host_id)
        text = f"Host {name} {status}."
        self._outbox.put(Notice(code, "normal", text, host_id, event=False, at_ms=at_ms, host=name))
