# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity rules of administrators that contradict a wall are events before the wall is filled."""

from __future__ import annotations

import dataclasses

import pytest

from ovirt_tcp_plugin.lab.engine import model
from tests.broker.site import EVERYBODY, Site, until

NEGATIVE = model.Rule(enabled=True, enforcing=True, positive=False)
POSITIVE = model.Rule(enabled=True, enforcing=True, positive=True)


def add_group(site: Site, hosts_rule: model.Rule, vms_rule: model.Rule) -> model.AffinityGroup:
    tables = site.engine.model
    group = model.AffinityGroup(
        model.new_id(), "licence", site.cluster, hosts_rule, vms_rule, [site.host("h1").id]
    )
    group.vms = list(tables.vms)
    tables.groups[group.id] = group
    return group


@pytest.mark.parametrize(
    ("hosts_rule", "vms_rule", "severity", "text"),
    [
        (NEGATIVE, model.Rule(), "error", "off 1 hosts by an enforcing negative rule"),
        (POSITIVE, model.Rule(), "error", "on 1 hosts by an enforcing positive rule"),
        (model.Rule(), NEGATIVE, "warning", "apart by an enforcing negative rule"),
    ],
)
def test_one_of_either_sign_is_told_once_and_before_the_wall_has_any_host(
    site: Site, hosts_rule: model.Rule, vms_rule: model.Rule, severity: str, text: str
) -> None:
    add_group(site, hosts_rule, vms_rule)
    site.engine.faults.slow_answers = {"api/clusters/.*/affinitygroups": 4.0}
    site.start()
    until(lambda: site.told(text))
    assert not site.inside()
    (event,) = site.told(text)
    assert event.severity == severity
    assert "Make the rule not enforcing" in event.description
    site.engine.faults.slow_answers = {}
    seen = site.engine.rest.calls["GET clusters"]
    until(lambda: site.engine.rest.calls["GET clusters"] > seen + 2)
    assert len(site.told(text)) == 1


def test_one_that_appears_later_is_told_too(site: Site) -> None:
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    add_group(site, NEGATIVE, model.Rule())
    until(lambda: site.told("Affinity group licence of cluster Trusted keeps vm1, vm2 off 1 hosts"))


def test_those_of_a_cluster_that_is_no_pool_are_nobodys_business(site: Site) -> None:
    group = add_group(site, NEGATIVE, model.Rule())
    other = dataclasses.replace(site.engine.model.clusters[site.cluster], id=model.new_id())
    other.name = "Other"
    other.policy = next(iter(site.engine.model.policies))
    site.engine.model.clusters[other.id] = other
    group.cluster = other.id
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    assert not site.told("Affinity group licence")
