# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong at the engine: each test breaks one thing there, and the doctor finds that
one."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable

import pytest

from ovirt_tcp_plugin.admin.doctor import peers
from ovirt_tcp_plugin.admin.doctor.observations import BrokerHost, BrokerView
from ovirt_tcp_plugin.admin.doctor.observations import observed_site as doctor_site
from ovirt_tcp_plugin.admin.doctor.walls import wall_hosts
from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.engine import builtin, model
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.filter_unit import offered_description
from ovirt_tcp_plugin.placement.pools import CLUSTER_MAINTENANCE
from tests.admin.doctor.conftest import GATE, Installation

Patch = pytest.MonkeyPatch
Break = Callable[[Installation, Patch], None]


def set_cluster(name: str, value: object) -> Break:
    return lambda one, patch: patch.setattr(one.tables.clusters[one.site.cluster], name, value)


def set_unit(name: str, value: object) -> Break:
    def broken(one: Installation, patch: Patch) -> None:
        patch.setattr(
            next(unit for unit in one.tables.units.values() if unit.name == "TrustedHosts"),
            name,
            value,
        )

    return broken


def without_affinity_filter(one: Installation, patch: Patch) -> None:
    patch.setattr(
        one.policy, "filters", [uid for uid in one.policy.filters if uid != builtin.AFFINITY_FILTER]
    )


def without_balance(one: Installation, patch: Patch) -> None:
    patch.setattr(one.policy, "balances", [])


def trusted_service_elsewhere(one: Installation, patch: Patch) -> None:
    other = next(cluster for cluster in one.tables.clusters.values() if cluster.name == "Other")
    patch.setattr(other, "trusted_service", True)


def define(pattern: str) -> Break:
    return lambda one, patch: patch.setitem(
        one.site.engine._vm_properties, "trusted_host_flag", pattern
    )


def without_property(one: Installation, patch: Patch) -> None:
    patch.delitem(one.site.engine._vm_properties, "trusted_host_flag")


def permits(change: Callable[[set[str]], set[str]]) -> Break:
    def broken(one: Installation, patch: Patch) -> None:
        role = one.tables.roles["smallest"]
        patch.setattr(role, "permits", change(role.permits))

    return broken


def without_wall(one: Installation, patch: Patch) -> None:
    patch.delitem(one.tables.groups, one.wall.id)


def ended(one: Installation, patch: Patch) -> None:
    """The broker keeps no pool, and the cluster has another policy."""
    patch.setattr(one.site.state._inventory.pools, "by_cluster", {})
    set_cluster("policy", builtin.NONE_POLICY)(one, patch)


def without_pool(one: Installation, patch: Patch) -> None:
    ended(one, patch)
    without_wall(one, patch)


def with_doubled_filter(one: Installation, patch: Patch) -> None:
    patch.setattr(one.policy, "filters", [*one.policy.filters, one.policy.filters[0]])


def with_doubled_weight(one: Installation, patch: Patch) -> None:
    weight = next(uid for uid, _, kind in builtin.UNITS if kind == "weight")
    patch.setattr(one.policy, "weights", [weight, weight])


def with_quarantine_left(one: Installation, patch: Patch) -> None:
    foreign = next(host for host in one.tables.hosts.values() if host.name == "foreign")
    patch.setattr(foreign, "status", "maintenance")
    patch.setattr(foreign, "status_detail", "ovirt-tcp: not trusted (pcr_differs): PCR 17")


def weak(rule: str, **changes: bool) -> Break:
    return lambda one, patch: patch.setattr(one.wall, rule, model.Rule(**changes))


def renamed(one: Installation, patch: Patch) -> None:
    patch.setattr(one.wall, "name", "mine")


def without_vm(one: Installation, patch: Patch) -> None:
    patch.setattr(one.wall, "vms", [uid for uid in one.wall.vms if uid != one.vm("vm2").id])


def with_foreign_host(one: Installation, patch: Patch) -> None:
    patch.setattr(one.wall, "hosts", [*one.wall.hosts, one.site.host("foreign").id])


def with_foreign_host_and_no_server(one: Installation, patch: Patch) -> None:
    with_foreign_host(one, patch)
    patch.setattr(one.site.state.questions, "_servers_answer", False)


def with_label(one: Installation, patch: Patch) -> None:
    label = model.AffinityLabel(model.new_id(), "fast", [one.site.host("h1").id])
    patch.setitem(one.tables.labels, label.id, label)
    patch.setattr(one.wall, "host_labels", [label.id])


def without_host(one: Installation, patch: Patch) -> None:
    patch.setattr(
        one.wall, "hosts", [uid for uid in one.wall.hosts if uid != one.site.host("h2").id]
    )


def with_negative_rule(one: Installation, patch: Patch) -> None:
    rules = model.Rule(enabled=True, enforcing=True, positive=False), model.Rule()
    group = model.AffinityGroup(model.new_id(), "apart", one.site.cluster, *rules)
    group.hosts, group.vms = [one.site.host("h1").id], [one.vm("vm1").id]
    patch.setitem(one.tables.groups, group.id, group)


def with_engine_vm(one: Installation, patch: Patch) -> None:
    patch.setattr(one.wall, "vms", [*one.wall.vms, one.vm("HostedEngine").id])


def with_attestation_server(one: Installation, patch: Patch) -> None:
    patch.setattr(
        peers,
        "addresses",
        lambda url: frozenset() if "engine" in url else frozenset({"attest.lab", "10.0.0.7"}),
    )
    patch.setattr(one.vm("vm1"), "ips", ("10.0.0.7",))


def with_its_name(one: Installation, patch: Patch) -> None:
    patch.setattr(
        peers, "addresses", lambda url: frozenset({"vm1.lab"}) if "engine" in url else frozenset()
    )


def left_over(one: Installation, patch: Patch) -> None:
    """The unit is of an earlier discovery than the engine's last start."""
    patch.setitem(one.options["engine"], "start_file", str(one.directory / "engine.up"))
    (one.directory / "engine.up").touch()
    an_hour_ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    set_unit("description", offered_description(an_hour_ago, "0123abcd"))(one, patch)


def hook(checksum: str, point: str = "before_vm_start") -> Break:
    return lambda one, patch: patch.setitem(one.site.host("h1").hooks, (point, GATE), checksum)


def without_hook(one: Installation, patch: Patch) -> None:
    patch.delitem(one.site.host("h1").hooks, ("before_vm_migrate_destination", GATE))


def without_hooks(one: Installation, patch: Patch) -> None:
    patch.setattr(one.site.host("h1"), "hooks", {})


@pytest.mark.parametrize(
    ("broken", "code", "state", "text", "step"),
    [
        (
            set_unit("enabled", False),
            "unit_disabled",
            "FAIL",
            "first starts of VMs are not filtered",
            "restart the engine",
        ),
        (left_over, "unit_unasked", "FAIL", "left over from before", "restart the engine"),
        (without_pool, "no_pool", "warning", "no VM is protected", "Scheduling Policy"),
        (
            without_affinity_filter,
            "no_affinity_filter",
            "FAIL",
            "cluster Trusted has no filter VmToHosts",
            "policy trusted",
        ),
        (
            without_balance,
            "no_balance",
            "FAIL",
            "every cluster after it",
            "choose a load balancer in policy trusted",
        ),
        (
            set_cluster("trusted_service", True),
            "trusted_service",
            "FAIL",
            "set on Trusted",
            "Enable Trusted Service",
        ),
        (
            trusted_service_elsewhere,
            "trusted_service",
            "FAIL",
            "set on Other",
            "pools work without it",
        ),
        (
            without_property,
            "property_undefined",
            "warning",
            "protected all the same",
            "engine-config -m",
        ),
        (define("^yes$"), "property_undefined", "warning", "cluster Trusted", "engine-config -m"),
        (define("("), "property_undefined", "warning", "cluster Trusted", "engine-config -m"),
        (
            permits(lambda own: own - {"manipulate_host"}),
            "permit_missing",
            "FAIL",
            "system: manipulate_host.",
            "permits",
        ),
        (
            permits(lambda own: own | {"manipulate_roles"}),
            "permits_wide",
            "warning",
            "any right",
            "just inject_external",
        ),
        (with_doubled_filter, "policy_stuck", "warning", "twice in the engine", "restart ovirt"),
        (with_doubled_weight, "policy_stuck", "warning", "refuses every", "removed and made"),
        (with_quarantine_left, "quarantine_left", "warning", "pools: foreign", "activate"),
        (without_wall, "wall_missing", "FAIL", "Cluster Trusted has no wall", "ovirt-tcp-broker"),
        (
            weak("hosts_rule", enabled=True, positive=True),
            "wall_weakened",
            "FAIL",
            "was edited",
            "ovirt-tcp-broker",
        ),
        (
            weak("hosts_rule", enabled=True, enforcing=True, positive=False),
            "wall_weakened",
            "FAIL",
            "edited",
            "broker",
        ),
        (weak("vms_rule", enabled=True), "wall_weakened", "FAIL", "was edited", "ovirt-tcp-broker"),
        (renamed, "wall_weakened", "FAIL", "was edited", "ovirt-tcp-broker"),
        (without_vm, "wall_vms", "FAIL", "not behind its wall: vm2.", "ovirt-tcp-broker"),
        (with_foreign_host, "wall_wide", "FAIL", "not trusted: foreign.", "ovirt-tcp-broker"),
        (
            with_foreign_host_and_no_server,
            "wall_wide",
            "FAIL",
            "not trusted: foreign.",
            "ovirt-tcp-broker",
        ),
        (with_label, "wall_labels", "FAIL", "bears an affinity label", "ovirt-tcp-broker"),
        (without_host, "wall_narrow", "warning", "that are trusted: h2.", "ovirt-tcp-broker"),
        (
            with_negative_rule,
            "rule_conflict",
            "FAIL",
            "keeps vm1 off 1 hosts by an enforcing",
            "take the VMs out",
        ),
        (
            with_engine_vm,
            "engine_vm_walled",
            "FAIL",
            "HostedEngine is behind the wall",
            "take HostedEngine out",
        ),
        (
            with_attestation_server,
            "server_inside",
            "FAIL",
            "VM vm1 of cluster Trusted",
            "pools.exempt_vms",
        ),
        (
            with_its_name,
            "server_inside_perhaps",
            "warning",
            "has the name of the engine",
            "if so, move it",
        ),
        (
            hook("0" * 64),
            "gate_altered",
            "FAIL",
            "host h1 at before_vm_start is not the one",
            "investigate the host",
        ),
        (hook("0" * 32), "gate_unproven", "warning", "another kind than SHA-256", "by hand"),
        (
            without_hook,
            "gate_incomplete",
            "FAIL",
            "but not at before_vm_migrate_destination",
            "libexec/vdsm/hooks",
        ),
        (
            without_hooks,
            "gate_missing",
            "warning",
            "Hosts without the gate: h1.",
            "libexec/vdsm/hooks",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.replace("_", "").isalpha() else "",
)
def test_one_thing_that_is_wrong_is_found_alone(
    installation: Installation,
    monkeypatch: Patch,
    broken: Break,
    code: str,
    state: str,
    text: str,
    step: str,
) -> None:
    broken(installation, monkeypatch)
    look = installation.look()
    assert look.bad == {code: state}
    assert text in look.by_code[code]["text"]
    assert step in look.by_code[code]["next"]
    assert look.status == (1 if state == "FAIL" else 0)


def test_hosts_that_the_broker_keeps_inside_without_a_verdict_are_a_warning(
    installation: Installation,
) -> None:
    site = doctor_site(Engine(engine_access(installation.site.options.engine)).listing(), ())
    first, *others = [installation.site.host(name).id for name in ("h1", "h2", "h3")]
    hosts = {uid: BrokerHost(uid, uid, True, "", False, False) for uid in others}
    hosts[first] = BrokerHost(first, first, False, "verdict_ended", False, stays_inside=True)
    (finding,) = wall_hosts(site, BrokerView(hosts, {}, {}, servers_answer=True))
    assert (finding.code, finding.text[-4:]) == ("wall_stands", " h1.")
    hosts[first] = dataclasses.replace(hosts[first], stays_inside=False)
    (finding,) = wall_hosts(site, BrokerView(hosts, {}, {}, servers_answer=True))
    assert (finding.code, "not trusted: h1." in finding.text) == ("wall_wide", True)


def test_without_our_unit_a_pool_is_still_one(
    installation: Installation, monkeypatch: Patch
) -> None:
    set_unit("name", "Another")(installation, monkeypatch)
    assert installation.look().bad == {"unit_unknown": "FAIL"}


def test_a_wall_that_was_left_after_the_end_of_a_pool_is_found(
    installation: Installation, monkeypatch: Patch
) -> None:
    ended(installation, monkeypatch)
    look = installation.look()
    assert look.bad == {"no_pool": "warning", "wall_left": "FAIL"}
    finding = look.by_code["wall_left"]
    assert "Cluster Trusted is no trusted pool, but a wall is left" in finding["text"]
    assert f"affinity group {installation.wall.name}" in finding["next"]


def test_a_pool_under_another_policy_fails_with_both_ways_out(
    installation: Installation, monkeypatch: Patch
) -> None:
    set_cluster("policy", builtin.NONE_POLICY)(installation, monkeypatch)
    look = installation.look()
    assert look.bad == {"pool_policy": "FAIL"}
    finding = look.by_code["pool_policy"]
    assert "its policy none has no TrustedHosts" in finding["text"]
    assert "give it back its policy" in finding["next"]
    assert "ovirt-tcp pool end Trusted" in finding["next"]


def test_without_a_broker_a_wall_shows_a_pool(
    installation: Installation, monkeypatch: Patch
) -> None:
    set_cluster("policy", builtin.NONE_POLICY)(installation, monkeypatch)
    look = installation.look(cli={"broker": {"url": "http://127.0.0.1:1"}})
    assert (look.bad["pool_policy"], look.bad["broker_silent"]) == ("FAIL", "FAIL")


def test_a_cluster_upgrade_is_a_warning_and_no_wall_is_left_behind(
    installation: Installation, monkeypatch: Patch
) -> None:
    set_cluster("policy", CLUSTER_MAINTENANCE)(installation, monkeypatch)
    look = installation.look()
    assert look.bad == {"pool_upgrade": "warning"}
    assert look.status == 0


def test_under_another_policy_the_broker_says_who_needs_trust(
    installation: Installation, monkeypatch: Patch
) -> None:
    set_cluster("policy", CLUSTER_MAINTENANCE)(installation, monkeypatch)
    known = installation.site.state._inventory.pools.by_cluster
    lax = dataclasses.replace(known[installation.site.cluster], scope=Scope.MARKED_VMS)
    monkeypatch.setitem(known, installation.site.cluster, lax)
    without_vm(installation, monkeypatch)
    assert installation.look().bad == {"pool_upgrade": "warning"}


def test_a_locked_policy_that_shows_our_unit_is_found(
    installation: Installation, monkeypatch: Patch
) -> None:
    unit = next(unit for unit in installation.tables.units.values() if unit.name == "TrustedHosts")
    policy = installation.tables.policies[builtin.NONE_POLICY]
    monkeypatch.setattr(policy, "filters", [*policy.filters, unit.id])
    found = installation.look().by_code["policy_stuck"]
    assert found["state"] == "FAIL"
    assert "own policy none shows TrustedHosts" in found["text"]
    assert "(now: Other)" in found["text"]
    assert "systemctl restart ovirt-engine" in found["next"]


def test_marks_that_are_dropped_fail_where_vms_are_protected_by_mark(
    installation: Installation, monkeypatch: Patch
) -> None:
    without_property(installation, monkeypatch)
    set_cluster("properties", {"trust_scope": "marked_vms"})(installation, monkeypatch)
    look = installation.look()
    assert look.bad == {"property_undefined": "FAIL"}
    assert "marks are dropped" in look.by_code["property_undefined"]["text"]


def test_the_level_of_the_cluster_counts(installation: Installation, monkeypatch: Patch) -> None:
    set_cluster("level", "4.7")(installation, monkeypatch)
    assert installation.look().bad == {"property_undefined": "warning"}


def test_an_exempt_vm_and_the_engines_own_may_be_servers(
    installation: Installation, monkeypatch: Patch
) -> None:
    with_attestation_server(installation, monkeypatch)
    monkeypatch.setattr(installation.vm("HostedEngine"), "ips", ("10.0.0.7",))
    exempt = {"pools": {"exempt_vms": [installation.vm("vm1").id]}}
    assert installation.look(exempt).bad == {}


def test_an_exemption_of_nobody_is_told(installation: Installation) -> None:
    exempt = {"pools": {"exempt_vms": [installation.vm("vm1").id.upper()]}}
    look = installation.look(exempt)
    assert look.bad == {"exempt_unknown": "warning"}
    assert installation.vm("vm1").id.upper() in look.by_code["exempt_unknown"]["text"]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "fe80::1", "localhost", "localhost.localdomain"]
)
def test_what_every_machine_calls_itself_tells_nothing(
    installation: Installation, monkeypatch: Patch, address: str
) -> None:
    monkeypatch.setattr(peers, "addresses", lambda url: frozenset({address}))
    monkeypatch.setattr(installation.vm("vm1"), "ips", (address,))
    assert installation.look().bad == {}


def test_a_host_that_is_not_up_need_not_report_its_gate(
    installation: Installation, monkeypatch: Patch
) -> None:
    without_hooks(installation, monkeypatch)
    monkeypatch.setattr(installation.site.host("h1"), "status", "maintenance")
    assert installation.look().bad == {}
