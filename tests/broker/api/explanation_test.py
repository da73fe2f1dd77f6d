# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Why can this VM not run there: each line of enforcement has its say, and what stops the VM stands
in front."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.api import explanation
from ovirt_tcp_plugin.placement.inventory import Group, Host, Policy, Vm
from tests.broker.state.world import OPTIONS, World


def explain(world: World, vm: str = "vm-0", host: str = "host-0") -> Any:
    return explanation.explain(world.state.case(vm, host))


def lines(told: Any) -> dict[str, tuple[str, str]]:
    return {one["line"]: (one["says"], one["code"]) for one in told["lines"]}


def test_a_host_that_nobody_has_is_not_found() -> None:
    with pytest.raises(errors.NotFound):
        explain(World(), host="host-9")


def test_an_untrusted_host_is_refused_by_filter_wall_and_quarantine() -> None:
    world = World()
    world.attest(good=["h1", "h2"], bad=["h0"])
    world.build()
    assert world.leaving() == {"h0"}
    world.state.quarantine.deactivated("h0")
    told = explain(world)
    assert (told["allowed"], told["code"], told["reason"]) == (
        False,
        "pcr_differs",
        "PCR 17 is not the known one",
    )
    assert lines(told) == {
        "filter": ("no", "pcr_differs"),
        "wall": ("no", "outside"),
        "quarantine": ("no", "quarantined"),
        "gate": ("unknown", "at_the_host"),
        "engine": ("yes", "up"),
    }


def test_a_trusted_host_outside_the_wall_is_refused_by_the_wall() -> None:
    world = World()
    world.attest(good=["h1"])
    world.build()
    world.attest(good=["h0"])
    told = explain(world)
    assert (told["allowed"], told["code"], lines(told)["filter"]) == (
        False,
        "outside",
        ("yes", "trusted"),
    )
    world.build()
    assert explain(world)["allowed"] is True


@pytest.mark.parametrize(
    ("group", "code"),
    [
        (None, "no_wall"),
        (
            Group("wall", "ovirt-tcp-wall", frozenset(), frozenset({"v0"}), enforcing=False),
            "not_enforcing",
        ),
        (Group("wall", "ovirt-tcp-wall", frozenset(), frozenset({"v1"})), "not_member"),
    ],
)
def test_a_wall_that_does_not_hold_is_said(group: Group | None, code: str) -> None:
    world = World()
    world.wall = group
    world.look()
    assert lines(explain(world))["wall"] == ("yes", code)


@pytest.mark.parametrize(
    ("release", "says", "code"),
    [(None, "yes", "held"), (False, "yes", "spared"), (True, "no", "leaving")],
)
def test_the_guard_has_its_say(release: bool | None, says: str, code: str) -> None:
    world = World(hosts=10)
    world.attest(good=world.ids())
    world.attest(bad=["h0", "h1", "h2"])
    if release is not None:
        world.state.quarantine.decide(release)
    told = explain(world)
    assert lines(told)["quarantine"] == (says, code)
    assert told["allowed"] is False


def test_the_observation_of_a_pool_has_its_say() -> None:
    world = World(hosts=10)
    world.attest(bad=["h0"])
    told = explain(world)
    assert lines(told)["quarantine"] == ("yes", "observation")
    assert told["allowed"] is False


def test_a_vm_of_another_cluster_and_a_host_that_is_not_up_are_the_engines_reasons() -> None:
    world = World()
    world.attest(good=world.ids())
    world.vms[0] = dataclasses.replace(world.vms[0], cluster_id="other")
    world.look()
    assert explain(world)["code"] == "other_cluster"
    world.status("h1", "maintenance")
    assert lines(explain(world, "vm-1", "host-1"))["engine"] == ("no", "not_up")


def test_under_another_policy_the_wall_refuses_and_the_filter_is_not_asked() -> None:
    world = World()
    world.attest(good=["h1"])
    world.build()
    world.policy = Policy("plain", "power_saving")
    world.cluster = dataclasses.replace(world.cluster, policy_id="plain")
    world.look()
    told = explain(world)
    assert lines(told)["filter"] == ("yes", "not_asked")
    assert (told["allowed"], told["code"]) == (False, "outside")
    assert "scheduling policy power_saving is not the pool's" in told["lines"][0]["reason"]


def test_in_a_cluster_that_is_no_pool_nothing_of_ours_stops_a_vm() -> None:
    world = World()
    world.hosts.append(Host("h9", "host-9", "h9.lab", "other", "up"))
    world.vms.append(Vm("v9", "vm-9", "other"))
    world.look()
    told = explain(world, "vm-9", "host-9")
    assert (told["allowed"], told["code"], told["host"]["pool"]) == (True, "no_pool", "")


def test_an_exempt_vm_needs_no_wall() -> None:
    world = World(
        options=dataclasses.replace(OPTIONS, pools=settings.PoolOptions(exempt_vms=("v0",)))
    )
    told = explain(world)
    assert (told["allowed"], told["code"], lines(told)["wall"]) == (
        True,
        "exempt",
        ("yes", "needs_no_trust"),
    )
