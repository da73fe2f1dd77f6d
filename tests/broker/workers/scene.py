# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""An enforcement worker of which the test is the thread, and an engine that notes its calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.broker.workers.enforce import ENFORCE_EVERY_MS, EnforcementWorker
from ovirt_tcp_plugin.placement.inventory import Group
from tests.broker.state.world import World


class FakeEngine:
    """Does all that it is asked for, but what `refusals` says; `calls` has the others in order."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.refusals: dict[str, errors.Error] = {}
        self.is_away = False

    def answers(self) -> bool:
        return not self.is_away

    def has_group(self, cluster_id: str, group_id: str) -> bool:
        return True

    def walls(self, cluster_id: str) -> Sequence[Group]:
        return []

    def create_wall(
        self,
        cluster_id: str,
        host_ids: Collection[str] = (),
        vm_ids: Collection[str] = (),
        spare: bool = False,
    ) -> str:
        return "wall"

    def repair_wall(
        self, cluster_id: str, group_id: str, emptied: bool = False, name: str = ""
    ) -> None:
        return

    def remove_wall(self, cluster_id: str, group_id: str) -> None:
        self._do(f"remove wall {group_id}")

    def set_hosts(self, cluster_id: str, group_id: str, host_ids: Collection[str]) -> None:
        return

    def change_vms(
        self, cluster_id: str, group_id: str, added: Collection[str], removed: Collection[str]
    ) -> frozenset[str]:
        return frozenset(added)

    def add_host(self, cluster_id: str, group_id: str, host_id: str) -> None:
        return

    def remove_host(self, cluster_id: str, group_id: str, host_id: str) -> None:
        self._do(f"put out {host_id}")

    def add_vm(self, cluster_id: str, group_id: str, vm_id: str) -> None:
        return

    def remove_vm(self, cluster_id: str, group_id: str, vm_id: str) -> None:
        return

    def deactivate(self, host_id: str, reason: str) -> None:
        self._do(f"deactivate {host_id}")

    def activate(self, host_id: str) -> None:
        self._do(f"activate {host_id}")

    def _do(self, call: str) -> None:
        if call in self.refusals:
            raise self.refusals[call]
        self.calls.append(call)


class FakePublisher:
    """Notes when it was called."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def publish(self) -> None:
        self.calls.append("publish")

    def save(self) -> None:
        self.calls.append("save")

    def forget(self, pool_id: str) -> None:
        self.calls.append(f"forget {pool_id}")


class Scene:
    """A pool whose hosts are all inside the wall, and the worker of which the test is the
    thread."""

    def __init__(self, directory: Path) -> None:
        self.calls: list[str] = []
        self.world = World(hosts=6)
        self.world.attest(good=self.world.ids())
        self.world.build()
        self.engine = FakeEngine(self.calls)
        self.contact = EngineContact(self.engine, self.world.clock, 1_000)
        self.in_charge = True
        self.all_known = True
        self.listings_requested = 0
        self.worker = EnforcementWorker(
            self.world.state,
            self.engine,
            self.contact,
            EndRequests(directory),
            FakePublisher(self.calls),
            Metrics(),
            self.world.clock,
            lambda: self.in_charge,
            lambda: self.all_known,
            self._request_listing,
        )

    def step(self) -> list[str]:
        """Let a second pass and carry out what is planned; return the calls."""
        self.calls.clear()
        self.world.clock.pass_ms(ENFORCE_EVERY_MS)
        self.worker.step()
        return list(self.calls)

    def _request_listing(self) -> None:
        self.listings_requested += 1
