# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""VMs that are imported, cloned, moved and marked at a simulated engine, by the real SDK: each
fault is one event."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import hooks, settings
from ovirt_tcp_plugin.lab.engine import audit_log, model
from tests.broker.site import ADMINISTRATOR, HOOKS, PASSWORD, Site, until

MARK = "trusted_host_flag"
VM_EVENTS = (audit_log.VM_ADDED, audit_log.VM_UPDATED, audit_log.VM_CLONED, audit_log.VM_IMPORTED)


class Works:
    """A site with a second cluster that is no pool, and an administrator who works on its VMs."""

    def __init__(self, directory: Path, pki: Path) -> None:
        vms: list[dict[str, Any]] = [
            {"name": "web"},
            {"name": "marked", "custom_properties": {MARK: "true"}},
        ]
        self.site = Site(directory, pki, 1, vms)
        self.tables = self.site.engine.model
        self.plain = model.SimulatedCluster(
            model.new_id(), "Plain", policy=self.tables.clusters[self.site.cluster].policy
        )
        self.plain.policy = next(
            one.id for one in self.tables.policies.values() if one.name == "none"
        )
        self.tables.clusters[self.plain.id] = self.plain
        self.site.options = dataclasses.replace(
            self.site.options, intervals=settings.IntervalOptions(0.05, 0.1)
        )
        self.site.start()
        until(lambda: (wall := self.site.wall()) is not None and len(wall.vms) == 2)
        self.connection = ovirtsdk4.Connection(
            url=self.site.engine.url,
            username=ADMINISTRATOR,
            password=PASSWORD,
            ca_file=str(pki / "ca.pem"),
        )
        self.vms = self.connection.system_service().vms_service()

    def stop(self) -> None:
        self.connection.close()
        self.site.stop()
        self.site.engine.stop()

    def uid(self, name: str) -> str:
        return next(one.id for one in self.tables.vms.values() if one.name == name)

    def service(self, name: str) -> Any:
        return self.vms.vm_service(self.uid(name))

    def export(self, name: str) -> str:
        return str(self.service(name).get(all_content=True).initialization.configuration.data)

    def take_in(self, data: str, cluster: str, **how: bool) -> None:
        configuration = types.Configuration(type=types.ConfigurationType.OVF, data=data)
        initialization = types.Initialization(configuration=configuration)
        self.vms.add(
            types.Vm(cluster=types.Cluster(id=cluster), initialization=initialization),
            query={},
            **how,
        )

    def move(self, name: str, cluster: str) -> None:
        self.service(name).update(types.Vm(cluster=types.Cluster(id=cluster)))

    def told(self, name: str) -> list[str]:
        """Return the warnings about a VM once they came to rest: two more complete listings say
        nothing new."""
        wanted = f"VM {name} "
        until(lambda: self.site.told(wanted))
        self.look(2)
        return [one.description for one in self.site.told(wanted) if one.severity == "warning"]

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            before = self.site.service.observation._last_listing_ms
            until(lambda before=before: self.site.service.observation._last_listing_ms != before)

    def codes(self, name: str) -> list[str]:
        return [one["code"] for one in self.site.history.find(vm=name)]


@pytest.fixture
def works(tmp_path: Path, site_pki: Path) -> Iterator[Works]:
    made = Works(tmp_path, site_pki)
    yield made
    made.stop()


@pytest.mark.parametrize("lost", [False, True], ids=["event read", "event lost"])
class TestOneWarning:
    @pytest.fixture(autouse=True)
    def _lose(self, works: Works, lost: bool) -> None:
        if lost:
            works.tables.faults.lost_events |= set(VM_EVENTS)

    def test_of_a_vm_that_is_moved_out_of_its_pool(self, works: Works) -> None:
        works.move("web", works.plain.id)
        assert works.told("web") == [
            "VM web needed a trusted host in pool Trusted, and is now in cluster Plain, which is "
            "no trusted pool: "
            "it may run on any host."
        ]
        assert works.codes("web")[-2:] == ["vm_moved", "vm_left_trust"]

    def test_of_a_vm_that_is_removed_and_imported_into_no_pool(self, works: Works) -> None:
        data = works.export("web")
        works.service("web").remove()
        # One that may have begun before, one that does not show it, and one to be sure.
        works.look(3)
        works.take_in(data, works.plain.id)
        assert len(works.told("web")) == 1
        assert works.codes("web")[-2:] == ["vm_imported", "vm_left_trust"]

    def test_of_a_marked_one_that_is_imported_into_no_pool(self, works: Works) -> None:
        data = works.export("marked")
        works.service("marked").remove()
        works.take_in(data, works.plain.id)
        (text,) = works.told("marked")
        assert "is marked by trusted_host_flag, but is in cluster Plain" in text

    def test_of_a_clone_in_no_pool(self, works: Works) -> None:
        works.tables.vms[works.uid("marked")].cluster = works.plain.id
        works.service("marked").clone(vm=types.Vm(name="copy"))
        assert len(works.told("copy")) == 1
        assert len(works.told("marked")) == 1

    def test_of_a_vm_that_is_made_with_a_mark_in_no_pool(self, works: Works) -> None:
        mark = types.CustomProperty(name=MARK, value="true")
        works.vms.add(
            types.Vm(name="new", cluster=types.Cluster(id=works.plain.id), custom_properties=[mark])
        )
        assert len(works.told("new")) == 1


def test_the_engines_own_warning_is_relayed_and_told_for_a_vm_that_nobody_knew(
    works: Works,
) -> None:
    data = (
        works.export("web")
        .replace("<TrustedService>false", "<TrustedService>true")
        .replace(works.uid("web"), "0" * 36)
    )
    works.take_in(data.replace(">web<", ">stranger<"), works.plain.id)
    (text,) = works.told("stranger")
    assert "comes from a trusted cluster, as the engine says" in text
    assert {"engine_trust_mismatch", "vm_imported", "vm_from_trusted_cluster"} <= set(
        works.codes("stranger")
    )


def test_what_happened_while_the_broker_was_down_is_told_once(works: Works) -> None:
    works.site.stop()
    works.move("web", works.plain.id)
    for _ in range(2):
        works.site.start()
        works.look(2)
        assert len(works.told("web")) == 1
        works.site.stop()
    works.site.start()


def test_a_hook_by_hand_tells_what_stands(works: Works) -> None:
    works.move("web", works.plain.id)
    assert len(works.told("web")) == 1
    works.site.service.run_hook_by_hand("vm_moved", "", "web")
    until(lambda: works.site.told("needs no trusted host there, though it did before"))
    with pytest.raises(errors.NotFound):
        works.site.service.run_hook_by_hand("vm_moved", "", "nobody")


def test_a_hook_that_fails_loses_no_warning(tmp_path: Path, works: Works) -> None:
    works.site.stop()
    broken = shutil.copytree(HOOKS, tmp_path / "hooks")
    (broken / "vm_moved.py").write_text(
        "def handle(event, broker):\n    raise RuntimeError('mine')\n"
    )
    works.site.start()
    works.site.service._handles = {**works.site.service._handles, **hooks.load(broken)}
    works.move("web", works.plain.id)
    assert len(works.told("web")) == 1
