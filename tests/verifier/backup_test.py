# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A backup is made while the server runs; a restore revives the site and nothing that was ended."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest
import yaml

from ovirt_tcp_plugin.attester import agent
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.main import main
from ovirt_tcp_plugin.verifier.store import (
    endorsements,
    hosts,
    references,
    results,
    tokens,
    verdict_keys,
    withdrawals,
)
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token
from tests.verifier.enrolled import enrol, good_boot
from tests.verifier.live_server import Server
from tests.verifier.software_host import CuttingProxy, SoftwareHost
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import NOW, Vendor


def machine(directory: Path, url: str = "") -> Callable[..., click.testing.Result]:
    """Return the command of a server whose state is in a directory."""
    directory.mkdir(exist_ok=True)
    state = directory / "state"
    options: dict[str, Any] = {
        "server": {"certificate": str(state / "server.pem"), "key": str(state / "server.key")},
        "store": {"directory": str(state), "url": url},
    }
    (directory / "verifier.yaml").write_text(yaml.safe_dump(options))

    def run(*arguments: str) -> click.testing.Result:
        command = ["--config-dir", str(directory), *arguments]
        return click.testing.CliRunner().invoke(main, command)

    return run


def database_of(directory: Path) -> Database:
    return Database(f"sqlite:///{directory / 'state' / 'verifier.db'}")


def fill(directory: Path) -> None:
    """Give a server two hosts and something of everything else."""
    database = database_of(directory)
    for number in (0, 1):
        enrol(database, f"host-{number}", SoftwareTpm(number), f"c{number}")
    database.transact(lambda c: references.put(c, good_boot()))
    database.transact(lambda c: tokens.add(c, "viewer", Token("viewer")))
    database.transact(lambda c: tokens.add(c, "gone", Token("operator")))
    database.transact(lambda c: tokens.add(c, "unspent", Token("enrolment", "host-7")))
    database.transact(lambda c: endorsements.add(c, "e" * 64, "host-5"))
    database.close()


def test_a_backup_is_for_its_owner_only_and_overwrites_nothing(tmp_path: Path) -> None:
    run = machine(tmp_path / "a")
    assert run("init", "--name", "a").exit_code == 0
    file = tmp_path / "backup"
    assert run("backup", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = run("backup", str(file))
    assert again.exit_code == 1
    assert "exists" in again.output


def test_a_cut_or_foreign_backup_changes_nothing(tmp_path: Path) -> None:
    run = machine(tmp_path / "a")
    run("init", "--name", "a")
    file = tmp_path / "backup"
    run("backup", str(file))
    whole = file.read_bytes()
    other = machine(tmp_path / "b")
    for content in (b"", b"x", whole[: len(whole) // 2], whole[:-5]):
        file.write_bytes(content)
        refused = other("restore", str(file), "--nothing-withdrawn")
        assert refused.exit_code == 1, refused.output
        assert not (tmp_path / "b" / "state").exists()


def test_a_restore_is_refused_while_nobody_knows_what_was_taken_back(tmp_path: Path) -> None:
    run = machine(tmp_path / "a")
    run("init", "--name", "a")
    file = tmp_path / "backup"
    run("backup", str(file))
    refused = machine(tmp_path / "b")("restore", str(file))
    assert refused.exit_code == 1
    assert "--nothing-withdrawn" in refused.output
    in_use = run("restore", str(file))
    assert in_use.exit_code == 1
    assert "--replace" in in_use.output


@pytest.mark.parametrize("way", ["replace", "file"])
def test_what_was_taken_back_since_stays_so(tmp_path: Path, way: str) -> None:
    run = machine(tmp_path / "a")
    run("init", "--name", "a")
    fill(tmp_path / "a")
    database = database_of(tmp_path / "a")
    key = database.transact(verdict_keys.active)
    file = tmp_path / "backup"
    assert run("backup", str(file)).exit_code == 0
    known = database.transact(references.load).sets[0]
    value = known.values[0].identifier
    database.transact(lambda c: hosts.remove(c, "host-1"))
    database.transact(lambda c: references.put(c, known.withdrawn([value])))
    database.transact(lambda c: endorsements.remove(c, "host-5"))
    listed = database.transact(tokens.every)
    (gone,) = (name for name, token in listed.items() if token.role == "operator")
    database.transact(lambda c: tokens.remove(c, gone))
    database.close()
    run("verdict-key", "prepare")
    run("verdict-key", "activate")
    if way == "replace":
        target, arguments = tmp_path / "a", ["--replace"]
    else:
        since = tmp_path / "since"
        since.write_text(run("withdrawals").output)
        assert all(json.loads(line)["kind"] for line in since.read_text().splitlines())
        target, arguments = tmp_path / "b", ["--withdrawals", str(since)]

    restored = machine(target)("restore", str(file), *arguments)

    assert restored.exit_code == 0, restored.output
    assert "host list" in restored.output
    database = database_of(target)
    assert database.transact(hosts.names) == ["host-0"]
    names = {token.role for token in database.transact(tokens.every).values()}
    assert names == {"viewer"}
    values = database.transact(references.load).sets[0].values
    assert value not in {known.identifier for known in values}
    assert database.transact(endorsements.every) == []
    assert key is not None
    active = database.transact(verdict_keys.active)
    assert active is None or active.key_id != key.key_id
    database.close()
    assert machine(target)("init").exit_code == 0
    assert "active" in machine(target)("verdict-key", "list").output


def test_a_chip_that_was_replaced_since_does_not_come_back(tmp_path: Path) -> None:
    run = machine(tmp_path / "a")
    run("init", "--name", "a")
    database = database_of(tmp_path / "a")
    enrol(database, "host-1", SoftwareTpm(0), "c1", "old ek")
    file = tmp_path / "backup"
    run("backup", str(file))
    database.transact(lambda c: hosts.remove(c, "host-1"))
    enrol(database, "host-1", SoftwareTpm(1), "c2", "new ek")
    database.close()

    assert run("restore", str(file), "--replace").exit_code == 0

    database = database_of(tmp_path / "a")
    assert database.transact(hosts.names) == []
    database.close()


@pytest.mark.each_database
def test_from_one_kind_of_database_into_the_other(tmp_path: Path, empty_database_url: str) -> None:
    run = machine(tmp_path / "a")
    run("init", "--name", "a")
    fill(tmp_path / "a")
    file = tmp_path / "backup"
    run("backup", str(file))
    other = machine(tmp_path / "b", empty_database_url)
    restored = other("restore", str(file), "--nothing-withdrawn")
    assert restored.exit_code == 0, restored.output
    again = tmp_path / "again"
    assert other("backup", str(again)).exit_code == 0
    third = machine(tmp_path / "c")
    assert third("restore", str(again), "--nothing-withdrawn").exit_code == 0
    database = database_of(tmp_path / "c")
    assert database.transact(hosts.names) == ["host-0", "host-1"]
    assert database.transact(lambda c: hosts.by_certificate(c, "c0")) is not None
    database.close()
    assert third("init").exit_code == 0


def test_under_load_and_on_another_machine_every_host_is_trusted_again(
    tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "WAIT_MS", 0)
    run = machine(tmp_path / "a")
    run("init", "--name", "127.0.0.1")
    first = serve(tmp_path / "a", vendor)
    proxy = CuttingProxy(first.port)
    site = [make_host(tmp_path / "a" / "state", n, proxy, vendor) for n in (0, 1)]
    for host in site:
        host.enrol(first.token("enrolment", host.name))
        host.start()
        host.agent.step()
    stop = threading.Event()
    reports = [threading.Thread(target=report, args=(first, host, stop)) for host in site]
    for thread in reports:
        thread.start()
    file = tmp_path / "backup"
    made = run("backup", str(file))
    stop.set()
    for thread in reports:
        thread.join()
    assert made.exit_code == 0, made.output
    # Since then one has another certificate, which the backup does not know.
    site[1].agent._credentials.renew()
    site[1].agent.step()
    first.stop()
    first.database.close()

    restored = machine(tmp_path / "b")("restore", str(file), "--nothing-withdrawn")

    assert restored.exit_code == 0, restored.output
    second = serve(tmp_path / "b", vendor)
    stored = [find(second, host.name) for host in site]
    assert [result.clock_id for result in stored] == [results.VOID] * 2
    proxy._port = second.port
    for host in site:
        for _ in range(6):
            host.agent.step()
        result = find(second, host.name)
        assert result.level is Level.TRUSTED
        assert result.clock_id == second.clock.boot_id
    proxy.close()
    second.stop()
    second.database.close()


def serve(directory: Path, vendor: Vendor) -> Server:
    ca = Authority.load(directory / "state")
    database = database_of(directory)
    server = Server(directory / "state", database, ca, vendor, requests_per_second=1e6)
    if not database.transact(references.load).sets:
        server.choose_good_boot()
    return server


def make_host(directory: Path, number: int, proxy: CuttingProxy, vendor: Vendor) -> SoftwareHost:
    tpm = SoftwareTpm(number)
    certificate = vendor.certify(tpm.ek_key.public_key(), end=NOW.replace(year=2090))
    place = directory / f"host-{number}"
    place.mkdir()
    return SoftwareHost(place, f"host-{number}", tpm, certificate, proxy.url)


def report(server: Server, host: SoftwareHost, stop: threading.Event) -> None:
    while not stop.is_set():
        host.agent.offer()
        host.agent.step()


def find(server: Server, name: str) -> results.Result:
    result = server.database.transact(lambda c: results.find(c, name))
    assert isinstance(result, results.Result)
    return result


def test_withdrawals_are_of_what_is_gone_now(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'v.db'}")
    golden = good_boot()
    database.transact(lambda c: references.put(c, golden))
    assert database.transact(withdrawals.every) == []
    database.transact(lambda c: references.remove(c, golden.name))
    gone = database.transact(withdrawals.every)
    assert {withdrawal.kind for withdrawal in gone} == {"set", "value"}
    database.transact(lambda c: references.put(c, golden))
    assert database.transact(withdrawals.every) == []
    database.close()
