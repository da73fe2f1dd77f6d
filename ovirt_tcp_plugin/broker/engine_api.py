# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What each worker asks of the engine, and nothing more. `engine.client.Engine` has all of it.

Every method raises Unavailable when the engine does not answer, Conflict when it refuses, NotFound,
and AccessRefused when it does not let the broker's user work.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from ovirt_tcp_plugin.placement.inventory import Event, Group, Host, Listing, Notice, Unit, Vm


class EngineAnswers(Protocol):
    """Whether it is there."""

    def answers(self) -> bool:
        """Return whether the engine answers: what fails while it does fails for itself."""


class EngineListings(EngineAnswers, Protocol):
    """What the engine shows."""

    def events(self, after: int) -> Sequence[Event]:
        """Return the events with higher ids than this one, the oldest first; not all if many."""

    def last_event_id(self) -> int:
        """Return the id of the newest event, 0 if there is none."""

    def hosts_not_up(self) -> Sequence[Host]:
        """Return the hosts that are not Up."""

    def listing(self, next_runs: bool = True) -> Listing:
        """Return everything; what the engine cannot show is named or counted in it.

        Args:
            next_runs: with the marks of next-run configurations, one call for each VM that has one.
        """

    def vm(self, vm_id: str) -> Vm:
        """Return a VM with the mark of its next-run configuration."""

    def hosts(self) -> Sequence[Host]:
        """Return all hosts that the engine can show."""

    def listing_without_vms(self) -> Listing:
        """Return everything but VMs."""

    def user_id(self) -> str:
        """Return the id of the broker's own user."""

    def units(self) -> Sequence[Unit]:
        """Return all scheduling policy units."""


class EngineWalls(EngineAnswers, Protocol):
    """What is done to walls, each named by the ids of its cluster and its affinity group."""

    def has_group(self, cluster_id: str, group_id: str) -> bool:
        """Return whether the engine lists this affinity group."""

    def walls(self, cluster_id: str) -> Sequence[Group]:
        """Return a cluster's walls, the best one first."""

    def create_wall(
        self,
        cluster_id: str,
        host_ids: Collection[str] = (),
        vm_ids: Collection[str] = (),
        spare: bool = False,
    ) -> str:
        """Make a wall with these members; return its id."""

    def repair_wall(
        self, cluster_id: str, group_id: str, emptied: bool = False, name: str = ""
    ) -> None:
        """Make the group an enforcing positive one again, without host labels."""

    def remove_wall(self, cluster_id: str, group_id: str) -> None:
        """Remove a wall; one that is gone is no error."""

    def set_hosts(self, cluster_id: str, group_id: str, host_ids: Collection[str]) -> None:
        """Have exactly these hosts inside."""

    def change_vms(
        self, cluster_id: str, group_id: str, added: Collection[str], removed: Collection[str]
    ) -> frozenset[str]:
        """Put VMs behind the wall and others out; return those that are behind it now."""

    def add_host(self, cluster_id: str, group_id: str, host_id: str) -> None:
        """Let a host in."""

    def remove_host(self, cluster_id: str, group_id: str, host_id: str) -> None:
        """Put a host out."""

    def add_vm(self, cluster_id: str, group_id: str, vm_id: str) -> None:
        """Put a VM behind the wall."""

    def remove_vm(self, cluster_id: str, group_id: str, vm_id: str) -> None:
        """Let a VM out."""


class EngineEnforcement(EngineWalls, Protocol):
    """What keeps VMs off hosts: walls, and maintenance."""

    def deactivate(self, host_id: str, reason: str) -> None:
        """Ask for maintenance; it is reached later."""

    def activate(self, host_id: str) -> None:
        """Ask for activation; the host is Up later."""


class EngineEventLog(Protocol):
    """Where events are written."""

    def add_event(self, notice: Notice, custom_id: int, /) -> None:
        """Write an event; a second one of the same number is not written."""


class EngineApi(EngineListings, EngineEnforcement, EngineEventLog, Protocol):
    """All that the broker asks of the engine."""
