# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Choosing reference values by the command, against a real attestation server: for people, and as
JSON."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ovirt_tcp_plugin.admin.cli import main
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store.database import Database
from tests.verifier.agent import Agent
from tests.verifier.conftest import vendor  # noqa: F401  (a fixture)
from tests.verifier.live_server import Server, level_of
from tests.verifier.software_tpm import launch_events
from tests.verifier.vendor import Vendor


class Desk:
    """An administrator's machine with a token of the attestation server."""

    def __init__(self, directory: Path, server: Server, agent: Agent) -> None:
        self.directory, self.server, self.agent = directory, server, agent

    def run(self, role: str, *arguments: str) -> Result:
        (self.directory / "token").write_text(self.server.token(role))
        url, ca = f"https://127.0.0.1:{self.server.port}", str(self.directory / "ca.pem")
        one = {"url": url, "ca_file": ca, "token_file": str(self.directory / "token")}
        (self.directory / "cli.yaml").write_text(yaml.safe_dump({"verifier": one}))
        done = CliRunner().invoke(main, ["--config-dir", str(self.directory), *arguments])
        assert done.exit_code == 0, done.output
        return done

    def json(self, role: str, *arguments: str) -> Any:
        return json.loads(self.run(role, *arguments, "--json").output)

    def golden(self, *options: str) -> Any:
        """Import the agent's boot as a set, which its fresh evidence is waited for."""
        self.agent.answer(self.agent.challenge())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            imported = pool.submit(
                self.json,
                "policy",
                "reference",
                "import",
                "golden",
                "--from-host",
                "host-1",
                "--without-kernel",
                *options,
            )
            self.agent.answer(self.agent.challenge())
            return imported.result()


@pytest.fixture
def desk(tmp_path: Path, authority: Authority, vendor: Vendor) -> Iterator[Desk]:  # noqa: F811
    database = Database(f"sqlite:///{tmp_path / 'verifier.db'}")
    server = Server(tmp_path, database, authority, vendor)
    yield Desk(tmp_path, server, Agent(server, vendor).enrol())
    server.stop()
    database.close()


def test_a_set_is_staged_previewed_activated_withdrawn_and_removed(desk: Desk) -> None:
    assert {value["staged"] for value in desk.golden("--stage")["values"]} == {True}
    (change,) = desk.json("policy", "reference", "preview", "--activate", "golden")
    assert (change["host_name"], change["then"]) == ("host-1", "trusted")
    active = desk.json("policy", "reference", "activate", "golden")["values"]
    assert {value["staged"] for value in active} == {False}
    assert level_of(desk.server) == "trusted"
    left = desk.json("policy", "reference", "withdraw", "golden", active[0]["identifier"])["values"]
    assert len(left) == len(active) - 1
    assert level_of(desk.server) == "untrusted"
    assert desk.json("policy", "reference", "remove", "golden") == {"removed": "golden"}
    assert level_of(desk.server) == "unknown"


def test_an_import_that_lets_boots_mix_says_which_and_how_to_avoid_it(desk: Desk) -> None:
    desk.golden()
    desk.agent.tpm.boot(launch_events(tboot=b"tboot 2", kernel=b"kernel 2"))
    desk.agent.answer(desk.agent.challenge())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        options = ["--from-host", "host-1", "--without-kernel"]
        imported = pool.submit(desk.run, "policy", "reference", "import", "golden", *options)
        desk.agent.answer(desk.agent.challenge())
        told = imported.result().output

    assert "golden takes any mixture of tboot or its command line (MLE) (2 values), " in told
    assert ": 4 boots. To take only boots as a golden host has them" in told
    assert "golden: it covers tboot" in told
    preview = desk.run("policy", "reference", "preview", "--activate", "golden").output
    assert "golden takes any mixture of " in preview


@pytest.mark.parametrize(("digits", "bank"), [(40, "sha1"), (64, "sha256"), (96, "sha384")])
def test_the_length_of_a_digest_tells_its_bank(desk: Desk, digits: int, bank: str) -> None:
    (value,) = desk.json(
        "policy", "reference", "add", "whole", "--pcr", "17", "--digest", "A" * digits
    )["values"]
    assert (value["bank"], value["digest"]) == (bank, "a" * digits)


def test_what_was_done_is_a_sentence_for_people(desk: Desk) -> None:
    told = desk.run(
        "policy", "reference", "add", "whole", "--pcr", "17", "--digest", "a" * 64, "--stage"
    ).output
    assert told == "added to whole, staged\n"
    assert (
        desk.run("operator", "hosts", "remove", "HOST-1").output == "HOST-1 is no longer enrolled\n"
    )


def test_a_removed_host_is_told_to_programs(desk: Desk) -> None:
    assert desk.json("operator", "hosts", "replace-tpm", "host-1") == {"removed": "host-1"}
