# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The whole broker against a simulated engine: real SDK, real threads, real files; only the
attestation is scripted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.hooks import HookApi, HookEvent
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import snapshot
from tests.broker.site import EVERYBODY, Site, until


class TestStart:
    def test_builds_the_wall_in_stages_and_writes_what_filterd_needs(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        assert [len(names) for names in site.source.asked[:2]] == [2, 3]
        wall = site.wall()
        assert wall is not None
        until(lambda: len(wall.vms) == 2)
        assert (wall.hosts_rule.enabled, wall.hosts_rule.enforcing, wall.hosts_rule.positive) == (
            True,
            True,
            True,
        )
        assert not wall.vms_rule.enabled
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        assert set(site.statuses().values()) == {"up"}

    def test_what_it_does_is_counted_and_kept(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY and site.trusted_in_snapshot() == EVERYBODY)
        site.source.levels["h1.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h1").id)
        until(lambda: site.told("Host h1 is untrusted") and site.statuses()["h1"] == "maintenance")
        text = site.service.metrics.render([], [], True, site.service.ages()).decode()
        told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        prefix = "ovirt_tcp_broker_"
        for name in (
            'wall_edits_total{edit="create"}',
            'wall_edits_total{edit="remove_host"}',
            'questions_total{outcome="answered"}',
            'snapshot_writes_total{outcome="written"}',
            'quarantines_total{outcome="accepted"}',
            'events_total{outcome="written"}',
        ):
            assert float(told[prefix + name]) >= 1, name
        assert 0 <= float(told[prefix + "listing_age_seconds"]) < 10
        kept = [one["code"] for one in site.history.find(host="h1")]
        assert [
            kept.index(code) for code in ("came_up", "trusted", "untrusted", "quarantined")
        ] == sorted(kept.index(code) for code in ("came_up", "trusted", "untrusted", "quarantined"))

    def test_without_an_attestation_server_nobody_is_inside_and_nobody_is_moved(
        self, site: Site
    ) -> None:
        site.source.down = True
        site.start()
        until(lambda: site.wall() and len(site.wall().vms) == 2)  # type: ignore[union-attr]
        until(lambda: site.told("No attestation server answers"))
        assert site.inside() == set()
        assert set(site.statuses().values()) == {"up"}
        assert site.trusted_in_snapshot() == set()

    def test_a_restart_keeps_verdicts_and_changes_no_host(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        site.stop()
        ends = {one: verdict.end_ms for one, verdict in site.snapshot().hosts.items()}
        site.source.down = True
        site.start()
        until(lambda: site.told("No attestation server answers"))
        assert site.inside() == EVERYBODY
        assert {one: verdict.end_ms for one, verdict in site.snapshot().hosts.items()} == ends


class TestUntrusted:
    def test_leaves_wall_snapshot_and_service_in_this_order_and_returns(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        seen: list[tuple[bool, bool]] = []
        deactivate = site.engine.hosts.deactivate

        def watched(host: model.SimulatedHost, reason: str) -> None:
            seen.append((host.name in site.inside(), host.name in site.trusted_in_snapshot()))
            deactivate(host, reason)

        site.engine.hosts.deactivate = watched  # type: ignore[method-assign]
        site.source.levels["h1.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h1").id)
        until(lambda: site.statuses()["h1"] == "maintenance")
        assert seen == [(False, False)]
        assert "pcr_differs" in site.host("h1").status_detail
        until(lambda: site.told("Host h1 is untrusted (pcr_differs): PCR 17 is not the known one"))
        assert {vm.host for vm in site.engine.model.vms.values()}.isdisjoint({site.host("h1").id})
        site.source.levels["h1.lab"] = Level.TRUSTED
        until(lambda: site.statuses()["h1"] == "up")
        until(lambda: site.inside() == EVERYBODY)
        assert site.told("Host h1 attested well")

    def test_one_in_an_administrators_maintenance_stays_there(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        site.engine.hosts.deactivate(site.host("h3"), "new memory modules")
        until(lambda: site.inside() == EVERYBODY - {"h3"})
        rounds = len(site.source.asked)
        site.service.attest_in_stages()
        until(lambda: len(site.source.asked) > rounds + 1)
        assert site.statuses()["h3"] == "maintenance"

    def test_refused_maintenance_is_an_event_and_the_host_gets_no_vm(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)

        def refuse(host: model.SimulatedHost, reason: str) -> None:
            text = "Host is already in Maintenance mode."
            raise Fault(
                409, "Operation Failed", f"[Cannot switch Host to Maintenance mode. {text}]"
            )

        site.engine.hosts.deactivate = refuse  # type: ignore[method-assign]
        site.source.levels["h2.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h2").id)
        until(lambda: site.told("maintenance was refused"))
        assert (
            "Host is already in Maintenance mode."
            in site.told("maintenance was refused")[0].description
        )
        assert site.inside() == EVERYBODY - {"h2"}

    def test_one_leaves_while_a_long_plan_lets_others_in(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who must leave does not wait for whoever enters, however slow the engine is with each."""
        add_host, entered = Engine.add_host, []

        def slowly(engine: Engine, cluster_id: str, group_id: str, host_id: str) -> None:
            entered.append(host_id)
            if len(entered) == 1:
                site.source.levels["h1.lab"] = Level.UNTRUSTED
                site.service.attest_host(site.host("h1").id)
                until(lambda: site.state.changes.is_trust_lost())
            add_host(engine, cluster_id, group_id, host_id)

        for n in (2, 3):
            site.source.levels[f"h{n}.lab"] = Level.TIMEOUT
        site.start()
        until(lambda: site.inside() == EVERYBODY - {"h2", "h3"})
        monkeypatch.setattr(Engine, "add_host", slowly)
        site.source.levels.clear()
        site.service.attest_in_stages()
        until(lambda: site.statuses()["h1"] == "maintenance")
        assert len(entered) <= 2 or site.inside() == EVERYBODY - {"h1"}
        until(lambda: site.inside() == EVERYBODY - {"h1"})

    def test_many_at_once_stay_in_service_and_get_no_vm(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        for n in (1, 2, 3):
            site.source.levels[f"h{n}.lab"] = Level.UNTRUSTED
        site.service.attest_in_stages()
        until(lambda: site.inside() == {"h4", "h5"})
        until(lambda: site.told("guard release"))
        in_service = [name for name in ("h1", "h2", "h3") if site.statuses()[name] == "up"]
        assert in_service, "the whole of them left service before the guard tripped"
        site.state.quarantine.decide(release=True)
        until(lambda: {site.statuses()[f"h{n}"] for n in (1, 2, 3)} == {"maintenance"})


class TestHosts:
    def test_a_rebooted_host_is_not_used_before_its_new_verdict(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        site.source.levels["h4.lab"] = Level.TIMEOUT
        site.engine.hosts.power(site.host("h4"), False)
        until(lambda: site.inside() == EVERYBODY - {"h4"})
        site.engine.hosts.power(site.host("h4"), True)
        until(lambda: site.statuses()["h4"] == "up")
        until(lambda: any("h4.lab" in names for names in site.source.asked[-3:]))
        assert site.inside() == EVERYBODY - {"h4"}
        assert "h4" not in site.trusted_in_snapshot()
        site.source.levels["h4.lab"] = Level.TRUSTED
        until(lambda: site.inside() == EVERYBODY)

    def test_silence_of_all_servers_moves_nobody(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        site.source.down = True
        site.service.attest_in_stages()
        until(lambda: site.told("No attestation server answers"))
        assert site.inside() == EVERYBODY
        assert set(site.statuses().values()) == {"up"}


class TestHooks:
    def test_one_that_fails_for_a_host_drops_no_other_hosts_and_no_listing(
        self, site: Site
    ) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        ran: list[str] = []

        def hook(event: HookEvent, _: HookApi) -> None:
            ran.append(event.host_id)
            raise ValueError(f"no such row: {event.host_id}")

        site.service._handles = {**site.service._handles, "init_vds_on_up": hook}
        hosts = [site.host("h1"), site.host("h2")]
        for host in hosts:
            host.status = "non_operational"
        until(lambda: site.inside() == EVERYBODY - {"h1", "h2"})
        with site.engine.model.lock:
            for host in hosts:
                host.status = "up"
        until(lambda: {host.id for host in hosts} <= set(ran))
        until(lambda: site.inside() == EVERYBODY)


class TestEngine:
    def test_its_restart_changes_no_host_and_all_enter_again(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        asked = len(site.source.asked)
        site.engine.restart(0.5)
        until(lambda: len(site.source.asked) >= asked + 2)
        until(lambda: site.inside() == EVERYBODY)
        assert set(site.statuses().values()) == {"up"}

    def test_an_edited_wall_is_repaired(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        wall = site.wall()
        assert wall is not None
        wall.hosts_rule = model.Rule(enabled=True, enforcing=False, positive=True)
        wall.hosts.remove(site.host("h1").id)
        wall.vms.clear()
        until(
            lambda: wall.hosts_rule.enforcing and site.inside() == EVERYBODY and len(wall.vms) == 2
        )

    def test_a_new_vm_is_put_behind_the_wall(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        vm = model.SimulatedVm(model.new_id(), "late", site.cluster)
        site.engine.model.vms[vm.id] = vm
        until(lambda: site.wall() and vm.id in site.wall().vms)  # type: ignore[union-attr]

    def test_a_disabled_unit_removes_no_wall(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        next(unit for unit in site.engine.model.units.values() if not unit.internal).enabled = False
        until(lambda: site.told("is disabled"))
        assert site.inside() == EVERYBODY

    def test_a_snapshot_that_cannot_be_written_is_written_later(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        write, failed = SnapshotWriter.write, []

        def fail_once(self: SnapshotWriter, one: snapshot.Snapshot) -> None:
            if not failed:
                failed.append(one)
                raise OSError("no space left on device")
            write(self, one)

        monkeypatch.setattr(SnapshotWriter, "write", fail_once)
        site.engine.hosts.deactivate(site.host("h3"), "new memory modules")
        until(lambda: failed and site.trusted_in_snapshot() == EVERYBODY - {"h3"})


class TestState:
    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b"\xff\xfe"])
    def test_a_broken_file_is_set_aside_and_trusts_nobody(
        self, tmp_path: Path, site: Site, content: bytes
    ) -> None:
        site.options.state.directory.mkdir()
        (site.options.state.directory / "state.json").write_bytes(content)
        site.source.down = True
        site.start()
        until(lambda: site.told("No attestation server answers"))
        assert site.inside() == set()
        assert (site.options.state.directory / "state.broken").exists()

    def test_it_is_whole_json_with_the_boot_it_is_of(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        site.stop()
        saved = json.loads((site.options.state.directory / "state.json").read_bytes())
        assert saved["knowledge"]["boot_id"] == site.clock.boot_id
        assert len(saved["knowledge"]["verdicts"]) == 5
