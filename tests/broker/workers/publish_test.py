# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When snapshots and the state file are written."""

from __future__ import annotations

import dataclasses
import errno
import random
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers.publish import (
    POOLS_IN_ONE_GO,
    SAVE_EVERY_MS,
    SNAPSHOT_EVERY_MS,
    PublicationWorker,
)
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.engine import faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.inventory import Listing
from tests.bench import locks
from tests.broker.site import EVERYBODY, Site, until
from tests.broker.state.world import OPTIONS, POOL, World
from tests.fake_clock import FakeClock


class Scene:
    """A pool of trusted hosts, and the worker of which the test is the thread."""

    def __init__(self, directory: Path, vms: int = 2) -> None:
        self.world = World(vms=vms)
        self.world.attest(good=self.world.ids())
        self.snapshot = directory / "snapshot.d" / f"{POOL}.json"
        self.state_file = directory / "state" / "state.json"
        self.may_begin = True
        self.all_known = True
        self.worker = PublicationWorker(
            self.world.state,
            SnapshotWriter(self.snapshot.parent),
            StateFile(self.state_file.parent),
            Metrics(),
            self.world.clock,
            lambda: self.may_begin,
            lambda: self.all_known,
        )

    def step(self) -> None:
        """Do what both threads would."""
        self.worker.step()
        self.worker.save_step()

    def level(self, host_id: str) -> Level:
        """Return what filterd reads of a host."""
        content = self.snapshot.read_bytes()
        return snapshot.decode(content, self.world.clock.boot_id).hosts[host_id].level


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def written(scene: Scene) -> Scene:
    """A scene whose files show the latest change."""
    scene.step()
    scene.state_file.unlink()
    return scene


def test_nothing_is_written_before_anything_is_known(scene: Scene) -> None:
    scene.may_begin = False
    scene.step()
    assert not scene.snapshot.exists()
    assert not scene.state_file.exists()


class TestBeforeTheVmsAreKnown:
    @pytest.fixture
    def restarted(self, scene: Scene, tmp_path: Path) -> Scene:
        """A broker that has listed hosts since its restart, and no VMs."""
        scene.world.vms[0] = dataclasses.replace(scene.world.vms[0], marked=True)
        scene.world.look()
        scene.step()
        restarted = Scene(tmp_path, vms=0)
        restarted.all_known = False
        return restarted

    def marks(self, scene: Scene) -> Mapping[str, bool]:
        content = scene.snapshot.read_bytes()
        return snapshot.decode(content, scene.world.clock.boot_id).vms

    def test_a_host_that_is_untrusted_loses_its_trust_in_the_earlier_file_at_once(
        self, restarted: Scene
    ) -> None:
        restarted.world.attest(bad=["h1"])
        restarted.step()
        assert restarted.level("h1") is Level.UNTRUSTED
        assert restarted.level("h2") is Level.TRUSTED
        assert self.marks(restarted) == {"v0": True, "v1": False}

    def test_a_host_that_left_up_loses_it_too(self, restarted: Scene) -> None:
        restarted.world.status("h1", "non_responsive")
        restarted.step()
        assert restarted.level("h1") is not Level.TRUSTED

    def test_the_file_shows_all_when_they_are(self, restarted: Scene) -> None:
        restarted.world.attest(bad=["h1"])
        restarted.step()
        restarted.world.clock.pass_ms(SNAPSHOT_EVERY_MS)
        restarted.all_known = True
        restarted.step()
        assert self.marks(restarted) == {}

    def test_an_earlier_file_that_cannot_be_read_is_replaced(self, restarted: Scene) -> None:
        restarted.snapshot.write_bytes(b"{")
        restarted.world.attest(bad=["h1"])
        restarted.step()
        assert restarted.level("h1") is Level.UNTRUSTED

    def test_the_earlier_file_stays_without_news(self, restarted: Scene) -> None:
        before = restarted.snapshot.stat().st_ino
        restarted.step()
        assert restarted.snapshot.stat().st_ino == before


def test_lost_trust_is_written_and_saved_at_once(written: Scene) -> None:
    written.world.attest(bad=["h1"])
    written.step()
    assert written.level("h1") is Level.UNTRUSTED
    assert written.state_file.exists()


def test_lost_trust_is_written_while_the_state_is_being_saved(
    written: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes long where there are many hosts, or the disk is slow."""
    saving = threading.Event()
    written_first = threading.Event()

    def save_slowly(self: StateFile, state: BrokerState) -> None:
        saving.set()
        written_first.wait(5)

    monkeypatch.setattr(StateFile, "save", save_slowly)
    written.world.attest(bad=["h1"])
    saver = threading.Thread(target=written.worker.save_step)
    saver.start()
    assert saving.wait(5)
    written.worker.step()
    assert written.level("h1") is Level.UNTRUSTED
    written_first.set()
    saver.join()


def test_new_trust_is_written_once_a_second(written: Scene) -> None:
    written.world.attest(bad=["h1"])
    written.step()
    written.world.clock.pass_ms(SNAPSHOT_EVERY_MS - 1)
    written.world.attest(good=["h1"])
    written.step()
    assert written.level("h1") is Level.UNTRUSTED
    written.world.clock.pass_ms(1)
    written.step()
    assert written.level("h1") is Level.TRUSTED


def test_renewed_verdicts_are_saved_every_ten_seconds(written: Scene) -> None:
    written.world.attest(good=written.world.ids())
    written.step()
    assert not written.state_file.exists()
    written.world.clock.pass_ms(SAVE_EVERY_MS)
    written.step()
    assert written.state_file.exists()


def test_a_disk_that_is_full_stops_nothing_and_is_tried_again(
    written: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, content: object) -> None:
        raise OSError("no space left on device")

    written.world.attest(bad=["h1"])
    with monkeypatch.context() as full:
        full.setattr(SnapshotWriter, "write", fail)
        full.setattr(StateFile, "save", fail)
        written.step()
    assert written.level("h1") is Level.TRUSTED
    written.world.clock.pass_ms(1)
    written.step()
    assert written.level("h1") is Level.UNTRUSTED, "lost trust does not wait"


def test_a_snapshot_that_cannot_be_written_is_logged_once(
    written: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, content: object) -> None:
        raise OSError("no space left on device")

    written.world.attest(bad=["h1"])
    with monkeypatch.context() as full:
        full.setattr(SnapshotWriter, "write", fail)
        for _ in range(5):
            written.step()
    assert caplog.text.count("snapshot not written") == 1


def test_a_full_disk_stops_no_quarantine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.start()
    until(lambda: site.inside() == EVERYBODY)

    def full(memory: StateFile, state: BrokerState) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(StateFile, "save", full)
        site.source.levels["h1.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h1").id)
        until(lambda: site.statuses()["h1"] == "maintenance")


def test_a_snapshot_directory_that_is_gone_is_made_again(site: Site) -> None:
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    shutil.rmtree(site.options.snapshot.directory)
    site.service.attest_in_stages()
    until(
        lambda: site.options.snapshot.directory.exists() and site.trusted_in_snapshot() == EVERYBODY
    )


def test_a_pool_whose_snapshot_cannot_be_written_keeps_no_other_back(site: Site) -> None:
    second = dataclasses.replace(
        site.engine.model.clusters[site.cluster], id=model.new_id(), name="Second"
    )
    bad = min(site.cluster, second.id)
    (site.options.snapshot.directory / f"{bad}.new").mkdir(parents=True)
    clusters = dict(sorted({**site.engine.model.clusters, second.id: second}.items()))
    site.engine.model.clusters.clear()
    site.engine.model.clusters.update(clusters)
    site.start()
    until(
        lambda: (
            site.options.snapshot.directory / f"{max(site.cluster, second.id, *clusters)}.json"
        ).exists()
    )


def test_what_lost_trust_between_two_writes_is_saved_while_the_engine_is_away(site: Site) -> None:
    """Only the engine's answers used to bring the next save about: killed by then, the broker
    trusted the host again."""
    site.options = dataclasses.replace(site.options, verdicts=settings.VerdictOptions())
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    until(lambda: site.trusted_in_snapshot() == EVERYBODY)
    site.engine.faults.answers = [AnswerFault(faults.HTML, times=10_000)]
    written_ms = site.snapshot().written_ms
    until(lambda: site.clock.now_ms() - written_ms > 1100)
    site.service.attest_host(site.host("h2").id)
    until(lambda: site.snapshot().written_ms > written_ms)
    site.source.levels["h1.lab"] = Level.UNTRUSTED
    site.service.attest_host(site.host("h1").id)
    until(lambda: "h1" not in site.trusted_in_snapshot())
    until(lambda: b'"untrusted"' in (site.options.state.directory / "state.json").read_bytes(), 2)
    site.engine.faults.answers = []


def test_what_loses_trust_before_all_vms_are_listed_is_saved(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may take long where there are many, and no snapshot is written before."""
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    until(lambda: site.trusted_in_snapshot() == EVERYBODY)
    site.stop()
    state, listing, saved = (
        site.options.state.directory / "state.json",
        Engine.listing,
        threading.Event(),
    )

    def slowly(engine: Engine) -> Listing:
        saved.wait(8)
        return listing(engine)

    monkeypatch.setattr(Engine, "listing", slowly)
    before = state.stat().st_ino
    site.start()
    until(lambda: state.stat().st_ino != before)
    site.source.levels["h1.lab"] = Level.UNTRUSTED
    site.service.attest_host(site.host("h1").id)
    until(lambda: b'"untrusted"' in state.read_bytes(), 4)
    saved.set()


def test_lost_trust_waits_for_no_other_pools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing makes all snapshots old, of which there may be a thousand."""
    pools = 5 * POOLS_IN_ONE_GO
    clock = FakeClock()
    state = BrokerState(OPTIONS, clock, random.random)
    listing = locks.listing(pools, pools, pools)
    state.observe_listing(listing, state.begin_listing())
    state.observe_hosts(listing.hosts)
    written: list[str] = []
    write = SnapshotWriter.write

    def write_and_lose(self: SnapshotWriter, fresh: snapshot.Snapshot) -> bool:
        if not written:
            state.host_restarted(listing.hosts[-1].id)
        written.append(fresh.pool_id)
        return write(self, fresh)

    monkeypatch.setattr(SnapshotWriter, "write", write_and_lose)
    worker = PublicationWorker(
        state,
        SnapshotWriter(tmp_path / "snapshot.d"),
        StateFile(tmp_path / "state"),
        Metrics(),
        clock,
        may_begin=lambda: True,
        all_known=lambda: True,
    )
    state.changes.written(state.pools())
    state.changes.touch()
    worker.step()
    assert len(written) <= POOLS_IN_ONE_GO
    written_before = len(written)
    worker.step()
    assert listing.hosts[-1].cluster_id == written[written_before]
    assert len(set(written)) == pools, "the others are written after it"
