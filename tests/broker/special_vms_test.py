# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The whole broker with VMs that keep a host in service or may run anywhere: the engine's own,
pinned and exempt ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state import quarantine
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.site import Site, until

Make = Callable[..., Site]


@pytest.fixture
def make(tmp_path: Path, site_pki: Path) -> Iterator[Make]:
    made: list[Site] = []

    def make(*vms: Mapping[str, Any]) -> Site:
        made.append(Site(tmp_path, site_pki, 3, vms))
        return made[0]

    yield make
    made[0].stop()
    made[0].engine.stop()


def run(site: Site) -> None:
    site.start()
    until(lambda: site.inside() == {"h1", "h2", "h3"})


def turn(site: Site, host: str, level: Level) -> None:
    site.source.levels[f"{host}.lab"] = level
    site.service.attest_host(site.host(host).id)


def test_the_host_of_the_engines_vm_waits_for_a_trusted_one_of_its_kind(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "KEPT_REPORTED_AFTER_MS", 300)
    site = make({"name": "HostedEngine", "host": "h1", "origin": "managed_hosted_engine"})
    site.host("h1").hosted_engine = True
    run(site)
    turn(site, "h1", Level.UNTRUSTED)
    until(lambda: site.told("carries the engine's own VM"))
    assert (site.statuses()["h1"], site.inside()) == ("up", {"h2", "h3"})
    assert site.told("carries the engine's own VM")[0].severity == "error"
    site.host("h3").hosted_engine = True
    until(lambda: site.statuses()["h1"] == "maintenance")
    (engine,) = site.engine.model.vms.values()
    assert engine.host == site.host("h3").id


def test_a_pinned_vm_keeps_its_host_and_an_error_names_it(make: Make) -> None:
    site = make({"name": "licence-server", "host": "h1", "affinity": "pinned", "pinned_to": ["h1"]})
    run(site)
    turn(site, "h1", Level.UNTRUSTED)
    until(lambda: site.told("maintenance was refused"))
    (told,) = site.told("maintenance was refused")
    assert (told.severity, "licence-server" in told.description) == ("error", True)
    assert (site.statuses()["h1"], site.inside()) == ("up", {"h2", "h3"})


def test_the_last_trusted_host_is_not_emptied(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "KEPT_REPORTED_AFTER_MS", 300)
    site = make({"name": "web", "host": "h1"})
    for host in ("h2", "h3"):
        site.source.levels[f"{host}.lab"] = Level.TIMEOUT
    site.start()
    until(lambda: site.inside() == {"h1"})
    site.state.quarantine.decide(release=True)
    turn(site, "h1", Level.UNTRUSTED)
    until(lambda: site.told("no other host of its pool is trusted"))
    assert site.statuses()["h1"] == "up"


def test_an_exempt_vm_that_starts_on_an_untrusted_host_is_told_of_at_once(make: Make) -> None:
    site = make({"name": "dns"})
    (dns,) = site.engine.model.vms.values()
    dns.affinity, dns.pinned_to = "pinned", (site.host("h2").id,)
    exempt = settings.PoolOptions(exempt_vms=(dns.id,))
    # Full listings are too rare to show it in time; the event of its start has one made.
    site.options = dataclasses.replace(
        site.options, pools=exempt, intervals=settings.IntervalOptions(0.1, 60.0)
    )
    site.source.levels["h2.lab"] = Level.TIMEOUT
    site.start()
    until(lambda: site.inside() == {"h1", "h3"})
    site.engine.vms.start(dns)
    until(lambda: site.told("VM dns runs on host h2, which is not trusted"))
    assert [one.severity for one in site.told("is exempt")] == ["warning"]
