# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What administrators ask of the engine: the real SDK against the simulated engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.engine.sdk import Access
from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from ovirt_tcp_plugin.placement.affinity_rules import EnforcingGroup
from ovirt_tcp_plugin.placement.inventory import wall_name
from tests.broker.site import ADMINISTRATOR, PASSWORD


@pytest.fixture
def engine(site_pki: Path) -> Iterator[EngineSimulator]:
    files = str(site_pki / "engine.pem"), str(site_pki / "engine.key")
    hosts = [{"name": f"h{n}", "address": f"h{n}.lab", "cluster": "Default"} for n in (1, 2)]
    vms = [{"name": f"vm{n}", "cluster": "Default"} for n in (1, 2)]
    running = EngineSimulator(Config(*files, {ADMINISTRATOR: PASSWORD}, hosts=hosts, vms=vms))
    running.start()
    yield running
    running.stop()


def administration(engine: EngineSimulator, pki: Path, password: str = PASSWORD) -> AdminClient:
    return AdminClient(Access(engine.url, ADMINISTRATOR, lambda: password, pki / "ca.pem", 5.0))


def test_a_wrong_password_is_one_plain_sentence(engine: EngineSimulator, site_pki: Path) -> None:
    with pytest.raises(errors.Unavailable, match="refuses the log-in of admin@internal"):
        administration(engine, site_pki, "wrong").enforcing_groups(engine.model.clusters)


def test_a_group_that_is_gone_is_removed_already(engine: EngineSimulator, site_pki: Path) -> None:
    """The engine answers 400 with an error of its own, not 404."""
    tables = engine.model
    (cluster,) = tables.clusters
    rule = model.Rule(True, True, True)
    tables.groups["g"] = model.AffinityGroup("g", "wall", cluster, rule, model.Rule())
    administrator = administration(engine, site_pki)
    administrator.remove_group(cluster, "g")
    assert tables.groups == {}
    administrator.remove_group(cluster, "g")


def test_groups_that_bind_come_with_all_members_and_the_others_not_at_all(
    engine: EngineSimulator, site_pki: Path
) -> None:
    tables, (cluster,) = engine.model, engine.model.clusters
    (h1, h2), (vm1, vm2) = tables.hosts, tables.vms
    apart, together = model.Rule(True, True, False), model.Rule(True, True, True)
    tables.labels["l"] = model.AffinityLabel("l", "label", [h2], [vm2])
    tables.groups["g"] = model.AffinityGroup(
        "g", "apart", cluster, apart, model.Rule(), [h1], [vm1], ["l"], ["l"]
    )
    tables.groups["t"] = model.AffinityGroup(
        "t", "together", cluster, model.Rule(), together, [h1], [vm1]
    )
    tables.groups["w"] = model.AffinityGroup(
        "w", wall_name(cluster), cluster, together, model.Rule(), [h1], [vm1]
    )
    tables.groups["p"] = model.AffinityGroup(
        "p", "licence", cluster, together, model.Rule(), [h1], [vm1]
    )
    found, licensed = administration(engine, site_pki).enforcing_groups([cluster])
    assert isinstance(found, EnforcingGroup)
    assert licensed.name == "licence"
    assert (found.name, found.host_ids, found.vm_ids) == ("apart", {h1, h2}, {vm1, vm2})
    assert found.hosts_rule.forbids
    assert not found.vms_rule.forbids
