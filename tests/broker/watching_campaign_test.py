# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Rounds with bad objects of every type, and one list that fails at random: whatever else happens
is acted on."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.workers.vm_monitor import VmMonitor
from ovirt_tcp_plugin.lab.engine import audit_log, faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY
from tests import soak
from tests.broker.site import EVERYBODY, Site, until

ROUNDS = soak.part(200, 6)
FOR_EVER = 1_000_000

# What goes wrong is asked for again and again, on a machine that other tests keep busy.
WITHIN_S = 30


class Campaign:
    """A pool that is watched, and another one with bad objects."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self._site = site
        self._tables = site.engine.model
        self._chance = chance
        pool = self._tables.clusters[site.cluster]
        pool.properties = {"trust_scope": "marked_vms"}
        self._other = dataclasses.replace(pool, id=model.new_id(), name="Other")
        self._tables.clusters[self._other.id] = self._other
        self._bad_vm = model.SimulatedVm(model.new_id(), "bad", self._other.id, next_run={})
        self._tables.vms[self._bad_vm.id] = self._bad_vm
        # In the other pool: one host that goes on well, and one that cannot be taken out.
        self._bad_host = self._add_host("bad-host")
        self._add_host("good-host")
        site.source.levels["bad-host.lab"] = Level.UNTRUSTED
        site.start()
        until(
            lambda: site.trusted_in_snapshot() == EVERYBODY and len(self._tables.groups) == 2,
            WITHIN_S,
        )

    def _add_host(self, name: str) -> model.SimulatedHost:
        host = model.SimulatedHost(model.new_id(), name, f"{name}.lab", self._other.id)
        self._tables.hosts[host.id] = host
        return host

    def _always_bad(self, broken: str) -> list[AnswerFault]:
        """Return the faults of single objects: a host, a VM, a wall."""
        paths = (
            f"POST api/hosts/{self._bad_host.id}/deactivate",
            f"GET api/vms/{self._bad_vm.id}",
            f"(PUT|POST|DELETE) api/clusters/{self._other.id}/affinitygroups(/.*)?",
        )
        answers: list[AnswerFault] = []
        for request in paths:
            verb, _, path = request.partition(" ")
            answers.append(AnswerFault(broken, verb, path, FOR_EVER))
        return answers

    def spoil_hook_and_records(self, patch: pytest.MonkeyPatch) -> None:
        """A hook that fails for each host, and a disk that keeps no records of VMs."""

        def fail(*_: object) -> None:
            raise ValueError("no such row")

        def refuse(_: VmMonitor) -> None:
            raise errors.Unavailable("the disk", "it is full")

        handles = {**self._site.service._handles, "init_vds_on_up": fail}
        patch.setattr(self._site.service, "_handles", handles)
        patch.setattr(VmMonitor, "save", refuse)

    def bad_paths(self) -> dict[str, str]:
        """Return what may fail, with the requests that it fails: verb and path."""
        group = f"api/clusters/{self._other.id}/affinitygroups"
        return {
            "a member of a wall": f"GET {group}/.*",
            "a page of VMs": "GET api/vms",
            "the clusters": "GET api/clusters",
            "a cluster's walls": f"[A-Z]+ {group}(/.*)?",
            "the policies": "GET api/schedulingpolicies",
            "the policy units": "GET api/schedulingpolicyunits",
            "the events": "GET api/events",
            "an event of ours": "POST api/events",
        }

    def round(self) -> None:
        """Break one thing, and see that a host that leaves and a VM that is marked are seen."""
        kind = self._chance.choice(sorted(self.bad_paths()))
        verb, _, path = self.bad_paths()[kind].partition(" ")
        broken = self._chance.choice([faults.BROKEN, faults.GARBAGE])
        listed = AnswerFault(broken, verb, path, FOR_EVER)
        self._site.engine.faults.answers = [listed, *self._always_bad(broken)]
        acts = [self._host_leaves]
        if kind not in ("a page of VMs", "the clusters", "the policies", "the policy units"):
            acts.append(self._listing_goes_on)
        if kind != "the events":
            acts.append(self._vm_is_marked)
        self._chance.shuffle(acts)
        for act in acts:
            self._do(f"{kind}, {broken}: {act.__name__}", act)
        self._site.engine.faults.answers = []

    def _do(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except AssertionError as e:
            raise AssertionError(f"seed {soak.SEED}, {what}") from e

    def _host_leaves(self) -> None:
        name = self._chance.choice(sorted(EVERYBODY))
        host = self._site.host(name)
        with self._tables.lock:
            host.status = "non_operational"
            self._tables.log(audit_log.HOST_LACKS_FEATURES, f"{name} left Up", host=host.id)
        until(lambda: name not in self._site.trusted_in_snapshot(), WITHIN_S)
        until(lambda: name not in self._site.inside(), WITHIN_S)
        host.status = "up"
        until(lambda: self._site.inside() == EVERYBODY, WITHIN_S)
        until(lambda: self._site.trusted_in_snapshot() == EVERYBODY, WITHIN_S)

    def _vm_is_marked(self) -> None:
        vm = next(vm for vm in self._tables.vms.values() if vm.name == "vm1")
        for mark in ("true", "false"):
            vm.custom_properties = {MARK_PROPERTY: mark}
            self._tables.log(audit_log.VM_UPDATED, "VM vm1 was updated.", vm=vm.id)
            wanted = mark == "true"
            until(lambda wanted=wanted: self._site.snapshot().vms.get(vm.id) is wanted, WITHIN_S)
            until(lambda wanted=wanted: self._is_behind_wall(vm.id) is wanted, WITHIN_S)

    def _is_behind_wall(self, vm_id: str) -> bool:
        wall = self._site.wall()
        return wall is not None and vm_id in wall.vms

    def _listing_goes_on(self) -> None:
        before = self._site.service.observation.listing_ms()
        until(lambda: self._site.service.observation.listing_ms() != before, WITHIN_S)


@pytest.mark.soak
@pytest.mark.timeout(120 if not soak.WHOLE else 2400)
def test_one_bad_object_hurts_only_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = Campaign(site, soak.randomness("bad objects"))
    campaign.spoil_hook_and_records(monkeypatch)
    for _ in range(ROUNDS):
        campaign.round()
