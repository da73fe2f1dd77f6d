# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When snapshots and the state file are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers.publish import (
    SAVE_EVERY_MS,
    SNAPSHOT_EVERY_MS,
    PublicationWorker,
)
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import snapshot
from tests.broker.state.broker_state_test import POOL, World


class Scene:
    """A pool of trusted hosts, and the worker of which the test is the thread."""

    def __init__(self, directory: Path, vms: int = 2) -> None:
        self.world = World(vms=vms)
        self.world.attest(good=self.world.ids())
        self.snapshot = directory / "snapshot.d" / f"{POOL}.json"
        self.state = directory / "state" / "state.json"
        self.may_begin = True
        self.all_known = True
        self.worker = PublicationWorker(
            self.world.knowledge,
            SnapshotWriter(self.snapshot.parent),
            StateFile(self.state.parent),
            Metrics(),
            self.world.clock,
            lambda: self.may_begin,
            lambda: self.all_known,
        )

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
    scene.worker.step()
    scene.state.unlink()
    return scene


def test_nothing_is_written_before_anything_is_known(scene: Scene) -> None:
    scene.may_begin = False
    scene.worker.step()
    assert not scene.snapshot.exists()
    assert not scene.state.exists()


class TestBeforeTheVmsAreKnown:
    @pytest.fixture
    def restarted(self, scene: Scene, tmp_path: Path) -> Scene:
        """A broker that has listed hosts since its restart, and no VMs."""
        scene.world.vms[0] = dataclasses.replace(scene.world.vms[0], marked=True)
        scene.world.look()
        scene.worker.step()
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
        restarted.worker.step()
        assert restarted.level("h1") is Level.UNTRUSTED
        assert restarted.level("h2") is Level.TRUSTED
        assert self.marks(restarted) == {"v0": True, "v1": False}

    def test_a_host_that_left_up_loses_it_too(self, restarted: Scene) -> None:
        restarted.world.status("h1", "non_responsive")
        restarted.worker.step()
        assert restarted.level("h1") is not Level.TRUSTED

    def test_the_file_shows_all_when_they_are(self, restarted: Scene) -> None:
        restarted.world.attest(bad=["h1"])
        restarted.worker.step()
        restarted.world.clock.pass_ms(SNAPSHOT_EVERY_MS)
        restarted.all_known = True
        restarted.worker.step()
        assert self.marks(restarted) == {}

    def test_an_earlier_file_that_cannot_be_read_is_replaced(self, restarted: Scene) -> None:
        restarted.snapshot.write_bytes(b"{")
        restarted.world.attest(bad=["h1"])
        restarted.worker.step()
        assert restarted.level("h1") is Level.UNTRUSTED

    def test_the_earlier_file_stays_without_news(self, restarted: Scene) -> None:
        before = restarted.snapshot.stat().st_ino
        restarted.worker.step()
        assert restarted.snapshot.stat().st_ino == before


def test_lost_trust_is_written_and_saved_at_once(written: Scene) -> None:
    written.world.attest(bad=["h1"])
    written.worker.step()
    assert written.level("h1") is Level.UNTRUSTED
    assert written.state.exists()


def test_new_trust_is_written_once_a_second(written: Scene) -> None:
    written.world.attest(bad=["h1"])
    written.worker.step()
    written.world.clock.pass_ms(SNAPSHOT_EVERY_MS - 1)
    written.world.attest(good=["h1"])
    written.worker.step()
    assert written.level("h1") is Level.UNTRUSTED
    written.world.clock.pass_ms(1)
    written.worker.step()
    assert written.level("h1") is Level.TRUSTED


def test_renewed_verdicts_are_saved_every_ten_seconds(written: Scene) -> None:
    written.world.attest(good=written.world.ids())
    written.worker.step()
    assert not written.state.exists()
    written.world.clock.pass_ms(SAVE_EVERY_MS)
    written.worker.step()
    assert written.state.exists()


def test_a_disk_that_is_full_stops_nothing_and_is_tried_again(
    written: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, content: object) -> None:
        raise OSError("no space left on device")

    written.world.attest(bad=["h1"])
    with monkeypatch.context() as full:
        full.setattr(SnapshotWriter, "write", fail)
        full.setattr(StateFile, "save", fail)
        written.worker.step()
    assert written.level("h1") is Level.TRUSTED
    written.world.clock.pass_ms(1)
    written.worker.step()
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
            written.worker.step()
    assert caplog.text.count("snapshot not written") == 1
