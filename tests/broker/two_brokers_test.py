# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Two whole brokers at one simulated engine: one is in charge, whichever starts, stops or dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.state import charge
from ovirt_tcp_plugin.broker.workers import charge_keeper
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.site import EVERYBODY, Site, until

AGAIN_MS = 2_000


@pytest.fixture(autouse=True)
def quick_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charge, "ANSWER_MS", 1_500)
    monkeypatch.setattr(charge, "AGAIN_MS", AGAIN_MS)
    monkeypatch.setattr(charge, "WRITE_AGAIN_MS", 2_000)


def start(site: Site, machine: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charge_keeper, "machine_name", lambda: machine)
        site.start()


@pytest.fixture
def first(site: Site) -> Site:
    """In charge, on engine.lab."""
    start(site, "engine.lab")
    until(lambda: site.inside() == EVERYBODY and site.trusted_in_snapshot() == EVERYBODY)
    return site


@pytest.fixture
def second(first: Site, tmp_path: Path, site_pki: Path) -> Iterator[Site]:
    """Another broker, not started yet, whose attestation server trusts nobody."""
    made = Site(tmp_path / "copy", site_pki, 5, engine=first.engine)
    made.source.levels = {f"{name}.lab": Level.UNTRUSTED for name in EVERYBODY}
    yield made
    if hasattr(made, "service"):
        made.stop()


def acts(site: Site) -> bool:
    return site.service.charge().acts


def test_the_second_changes_nothing_and_both_machines_are_named(first: Site, second: Site) -> None:
    start(second, "copy.lab")
    until(lambda: first.told("A second ovirt-tcp-broker runs for this engine, on copy.lab"))
    until(lambda: second.service.charge().others == ("engine.lab",))
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert first.inside() == EVERYBODY
        assert set(first.statuses().values()) == {"up"}
        assert not acts(second)
        time.sleep(0.05)
    assert acts(first)
    assert first.service.charge().others == ("copy.lab",)
    assert [row.severity for row in first.told("A second ovirt-tcp-broker")].count("error") == 1
    assert not first.told("Somebody edited the wall")


def test_the_second_goes_on_refusing_by_its_own_evidence(first: Site, second: Site) -> None:
    start(second, "copy.lab")
    until(lambda: second.service.observation.all_known.is_set())
    until(lambda: len(second.snapshot().hosts) == len(EVERYBODY))
    until(lambda: {host.level for host in second.snapshot().hosts.values()} == {Level.UNTRUSTED})
    assert first.trusted_in_snapshot() == EVERYBODY


def test_it_takes_over_when_the_first_is_gone(first: Site, second: Site) -> None:
    second.source.levels = {"h1.lab": Level.UNTRUSTED}
    start(second, "copy.lab")
    until(lambda: second.service.charge().others == ("engine.lab",))
    first.stop()
    try:
        until(lambda: acts(second), 20)
        until(lambda: second.inside() == EVERYBODY - {"h1"})
        assert not second.told("Somebody edited the wall")
    finally:
        # The fixture stops it once more.
        start(first, "engine.lab")
    until(lambda: first.service.charge().others == ("copy.lab",))
    assert acts(second)


def test_one_that_is_restarted_is_in_charge_at_once(first: Site) -> None:
    first.stop()
    start(first, "engine.lab")
    assert acts(first)
    first.source.levels["h1.lab"] = Level.UNTRUSTED
    first.service.attest_host(first.host("h1").id)
    until(lambda: first.inside() == EVERYBODY - {"h1"})


def test_one_whose_messages_the_engine_loses_acts_after_all(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charge, "UNSEEN_MS", 2_000)
    site.engine.faults.lost_events = {9801}
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    assert acts(site)
