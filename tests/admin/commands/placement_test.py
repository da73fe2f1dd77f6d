# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What people ask the broker, by the command and the broker's real interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from ovirt_tcp_plugin.admin.cli import main
from ovirt_tcp_plugin.broker import settings
from tests.broker.api.served import Api, use_another_policy


class Desk:
    """An administrator's machine with a token of the broker."""

    def __init__(self, directory: Path) -> None:
        (directory / "state").mkdir()
        self.api, self.directory = Api(directory / "state", settings.ApiOptions(port=0)), directory
        self.world = self.api.world
        self.log_in(self.api.secrets["operator"])

    def log_in(self, secret: str, url: str = "") -> None:
        (self.directory / "token").write_text(secret)
        broker = {"url": url or self.api.url, "token_file": str(self.directory / "token")}
        (self.directory / "cli.yaml").write_text(yaml.safe_dump({"broker": broker}))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["--config-dir", str(self.directory), *arguments])

    def lines(self, *arguments: str) -> list[str]:
        done = self.run(*arguments)
        assert done.exit_code == 0, done.output
        return done.output.splitlines()

    def trip(self) -> None:
        self.world.attest(good=self.world.ids())
        self.world.attest(bad=["h0", "h1", "h2"])
        self.api.writer.record()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.api.stop()


class TestErrors:
    def test_a_broker_that_is_away(self, desk: Desk) -> None:
        desk.log_in("x", "http://127.0.0.1:1")
        done = desk.run("pools")
        assert done.exit_code == 1
        assert "next: does the broker run? systemctl status ovirt-tcp-broker" in done.output

    def test_a_token_that_it_does_not_take(self, desk: Desk) -> None:
        desk.log_in("wrong")
        done = desk.run("verdicts")
        assert done.exit_code == 1
        assert "refused (unauthenticated): this needs viewer" in done.output
        assert "next: make a token by `ovirt-tcp-broker token add --role operator`" in done.output

    def test_a_viewers_token_decides_nothing(self, desk: Desk) -> None:
        desk.trip()
        desk.log_in(desk.api.secrets["viewer"])
        assert "this needs operator" in desk.run("guard", "release").output
        (row,) = desk.lines("guard")[1:]
        assert row.split(None, 3) == ["Trusted", "yes", "no", "host-0, host-1, host-2"]

    def test_a_host_that_there_is_not(self, desk: Desk) -> None:
        done = desk.run("why", "vm-0", "stranger")
        assert "there is no host stranger" in done.output
        assert "`ovirt-tcp verdicts` lists the hosts" in done.output

    @pytest.mark.parametrize("since", ["yesterday", "999999d"])
    def test_a_moment_that_is_none(self, desk: Desk, since: str) -> None:
        desk.log_in("x", "http://127.0.0.1:1")
        done = desk.run("history", "--since", since)
        assert done.exit_code == 2
        assert f"{since} is no moment such as 30m, 2h, 7d or 2026-01-02T03:04:05Z" in done.output

    def test_a_vm_that_nobody_knows_may_be_a_typing_error(self, desk: Desk) -> None:
        desk.world.attest(good=desk.world.ids())
        done = desk.run("why", "NOSUCH", "host-0")
        assert done.exit_code == 4
        assert "the broker knows no VM NOSUCH" in done.output

    def test_a_hook_that_does_not_exist_or_lacks_its_subject(self, desk: Desk) -> None:
        assert "next: `ovirt-tcp hook --help` lists the hooks" in desk.run("hook", "nosuch").output
        done = desk.run("hook", "init_vds_on_up")
        assert done.exit_code == 1
        assert "host is missing" in done.output


class TestPool:
    def test_one_whose_policy_is_ours_is_not_ended(self, desk: Desk) -> None:
        done = desk.run("pool", "end", "Trusted", "--yes")
        assert done.exit_code == 1
        assert "the scheduling policy trusted of cluster Trusted has the filter unit" in done.output
        assert "give the cluster another policy" in done.output

    def test_one_under_another_policy_is_ended_after_a_question(self, desk: Desk) -> None:
        use_another_policy(desk.world)
        assert desk.lines("pools")[1].split()[2:4] == ["power_saving", "(other)"]
        done = desk.run("pool", "end", "Trusted")
        assert done.exit_code == 1
        assert "VMs of Trusted will run on any host, trusted or not" in done.output
        assert len(desk.lines("pools")) == 2
        assert desk.lines("pool", "end", "Trusted", "--yes") == [
            "Trusted is no trusted pool any more; an event tells when everything is given back"
        ]
        assert desk.lines("pool", "end", "Trusted", "--yes") == ["Trusted is no trusted pool"]
        answer = json.loads(desk.run("pool", "end", "Trusted", "--yes", "--json").output)
        assert answer == {"pool": "Trusted", "was_pool": False}

    def test_a_viewer_ends_none(self, desk: Desk) -> None:
        use_another_policy(desk.world)
        desk.log_in(desk.api.secrets["viewer"])
        assert "this needs operator" in desk.run("pool", "end", "Trusted", "--yes").output


class TestWhy:
    def test_a_refusal_names_every_line_and_exits_with_3(self, desk: Desk) -> None:
        desk.world.attest(good=desk.world.ids())
        desk.world.attest(bad=["h0"])
        desk.world.build()
        done = desk.run("why", "vm-0", "host-0")
        assert done.exit_code == 3
        first, blank, header, *rows = done.output.splitlines()
        assert first == "vm-0 may not run on host-0 (pcr_differs): PCR 17 is not the known one"
        assert (blank, header.split()) == ("", ["LINE", "SAYS", "CODE", "WHY"])
        assert [row.split()[:3] for row in rows] == [
            ["filter", "no", "pcr_differs"],
            ["wall", "no", "outside"],
            ["quarantine", "no", "leaving"],
            ["gate", "unknown", "at_the_host"],
            ["engine", "yes", "up"],
        ]

    def test_a_vm_that_nobody_knows_is_said(self, desk: Desk) -> None:
        assert "the broker knows no VM vm-99" in desk.run("why", "vm-99", "host-0").output

    def test_it_may(self, desk: Desk) -> None:
        desk.world.attest(good=["h1"])
        desk.world.build()
        assert (
            desk.lines("why", "vm-0", "h1")[0]
            == "vm-0 may run on h1 (trusted): the host is trusted"
        )


class TestTables:
    def test_verdicts_with_age_and_reason(self, desk: Desk) -> None:
        desk.world.attest(good=["h1"], bad=["h0"])
        desk.world.build()
        desk.world.clock.pass_ms(4000)
        header, bad, good, *_ = desk.lines("verdicts")
        assert header == "HOST    STATUS  LEVEL      AGE  ENDS IN  WALL  WHY"
        assert bad == "host-0  up      untrusted  4 s  -        no    PCR 17 is not the known one"
        assert good == "host-1  up      trusted    4 s  596 s    yes"

    def test_silent_servers_and_the_startup_are_told_beside_the_verdicts(self, desk: Desk) -> None:
        desk.world.state.questions.begin_stages()
        desk.world.state.questions.stage(4)
        desk.world.state.questions.nobody_answered(["h0"], "refused")
        told = "\n".join(desk.lines("verdicts"))
        assert "no attestation server answers" in told
        assert "the startup attestation is not finished: stage 1, 4 of 10 hosts asked" in told

    def test_pools(self, desk: Desk) -> None:
        desk.world.attest(good=["h1", "h2"])
        desk.world.build()
        assert desk.lines("pools") == [
            "CLUSTER  SCOPE    POLICY   HOSTS INSIDE    VMS  GUARD TRIPPED",
            "Trusted  all_vms  trusted  host-1, host-2  2    no",
        ]

    def test_history_of_one_host_since_a_while_ago(self, desk: Desk) -> None:
        desk.trip()
        everything = desk.lines("history", "--host", "host-0", "--since", "1970-01-01T00:00:00Z")
        assert [line.split(None, 2)[2] for line in everything[1:]] == [
            "Host host-0 is Up.",
            "Host host-0 is trusted.",
            "Host host-0 is untrusted (pcr_differs): PCR 17 is not the known one. It gets no VMs.",
        ]
        # The test's clock stands in 1970.
        assert len(desk.lines("history", "--since", "2h")) == 1

    def test_what_a_name_holds_cannot_drive_the_terminal(self, desk: Desk) -> None:
        desk.world.hosts[0] = type(desk.world.hosts[0])("h0", "evil\x1b[2J", "h0.lab", "pool", "up")
        desk.world.look()
        output = desk.run("verdicts").output
        assert "\x1b" not in output
        assert "evil\\x1b[2J" in output

    @pytest.mark.parametrize(
        "command", ["verdicts", "pools", "history", "guard", "guard release", "guard reject"]
    )
    def test_everything_comes_as_json_for_programs(self, desk: Desk, command: str) -> None:
        assert isinstance(json.loads(desk.run(*command.split(), "--json").output), list)
        assert json.loads(desk.run("why", "vm-0", "h0", "--json").output)["lines"]


class TestGuard:
    @pytest.mark.parametrize(("verb", "left"), [("release", {"h0", "h1", "h2"}), ("reject", set())])
    def test_an_operator_decides_for_one_pool(self, desk: Desk, verb: str, left: set[str]) -> None:
        desk.trip()
        assert "there is no trusted pool Other" in desk.run("guard", verb, "--pool", "Other").output
        assert desk.lines("guard", verb, "--pool", "Trusted")[0].startswith(
            "host-0, host-1, host-2: "
        )
        assert desk.world.leaving() == left
        assert desk.lines("guard", verb) == ["no host was held"]


def test_a_hook_runs_by_hand(desk: Desk) -> None:
    assert desk.lines("hook", "init_vds_on_up", "host-3") == ["init_vds_on_up was run"]
    assert desk.lines("hook", "vm_imported", "vm-1") == ["vm_imported was run"]
    assert desk.api.service.events == [
        ("init_vds_on_up", "host-3", ""),
        ("vm_imported", "", "vm-1"),
    ]
