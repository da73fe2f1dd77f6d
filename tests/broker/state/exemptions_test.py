# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Each use of an exemption is an event, once for as long as it lasts."""

from __future__ import annotations

import dataclasses
import random

import pytest

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import Vm
from tests.broker.state.world import LIFE, OPTIONS, POOL, World

EXEMPT = dataclasses.replace(OPTIONS, pools=settings.PoolOptions(exempt_vms=("dns",)))


def world_with(vm: Vm) -> World:
    """A pool whose host h1 is untrusted, with a VM."""
    world = World(vms=0, options=EXEMPT)
    world.attest(good=world.ids())
    world.attest(bad=["h1"])
    world.vms.append(vm)
    world.told()
    return world


def uses(world: World) -> list[str]:
    world.look()
    return [text for text in world.told() if "is exempt" in text]


DNS = Vm("dns", "dns-1", POOL, "up", "h1")


@pytest.mark.parametrize(
    "vm", [DNS, Vm("engine", "HostedEngine", POOL, "up", "h1", hosted_engine=True)]
)
def test_a_use_is_told_once(vm: Vm) -> None:
    world = world_with(vm)
    (told,) = uses(world)
    assert (
        f"VM {vm.name} runs on host host-1, which is not trusted (pcr_differs): PCR 17 is not the "
        "known one" in told
    )
    assert uses(world) == []


def test_each_host_is_another_use() -> None:
    world = world_with(DNS)
    uses(world)
    world.vms[0] = dataclasses.replace(DNS, host_id="h0")
    assert uses(world) == []
    world.vms[0] = DNS
    assert len(uses(world)) == 1


def test_a_host_that_is_silent_beyond_its_end_is_not_trusted() -> None:
    world = world_with(dataclasses.replace(DNS, host_id="h2"))
    world.clock.pass_ms(LIFE - 1)
    assert uses(world) == []
    world.state.questions.record({"h2": Answer(Level.TIMEOUT, world.clock.ms, code="no_answer")})
    world.clock.pass_ms(1)
    (told,) = uses(world)
    assert "(verdict_ended): its verdict ended" in told


def test_nothing_is_said_before_hosts_were_asked() -> None:
    world = World(vms=0, options=EXEMPT)
    world.vms.append(DNS)
    assert uses(world) == []


@pytest.mark.parametrize(
    "vm",
    [
        Vm("web", "web", POOL, "up", "h1"),
        dataclasses.replace(DNS, host_id="h0"),
        dataclasses.replace(DNS, status="down", host_id=""),
        dataclasses.replace(DNS, cluster_id="elsewhere"),
    ],
    ids=["not exempt", "on a trusted host", "down", "in no pool"],
)
def test_what_is_no_use_is_not_told(vm: Vm) -> None:
    assert uses(world_with(vm)) == []


def test_a_vm_that_needs_no_trust_uses_no_exemption() -> None:
    world = world_with(DNS)
    world.cluster = dataclasses.replace(world.cluster, properties={"trust_scope": "marked_vms"})
    assert uses(world) == []
    world.vms[0] = dataclasses.replace(DNS, marked=True)
    assert len(uses(world)) == 1


def test_a_restart_of_the_broker_is_no_new_use() -> None:
    world = world_with(DNS)
    assert len(uses(world)) == 1
    saved = world.state.encode()
    world.state = BrokerState(world.options, world.clock, random.random)
    world.state.restore(saved)
    # Hosts are seen before VMs are listed.
    world.state.observe_hosts(world.hosts)
    assert uses(world) == []
