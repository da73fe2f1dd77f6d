# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Certificates of hosts renew without a person, whatever is cut, lost or full on the way.

The real agent's code against the real server over TLS; the TPM is the test's own.
"""

from __future__ import annotations

import contextlib
import datetime
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import agent
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store import hosts, results
from ovirt_tcp_plugin.verifier.store.database import Database
from tests import soak
from tests.verifier import software_host
from tests.verifier.live_server import Server
from tests.verifier.software_host import CuttingProxy, FullDisk, SoftwareHost
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import NOW, Vendor

# More tries than the longest row of faults.
TRIES = 8
# What a whole enrolment sends and gets is less.
MOST_BYTES = 12_000

renews_always = software_host.renews_always


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "WAIT_MS", 0)


@pytest.fixture
def local_server(tmp_path: Path, authority: Authority, vendor: Vendor) -> Iterator[Server]:
    database = Database(f"sqlite:///{tmp_path / 'verifier.db'}")
    running = Server(tmp_path, database, authority, vendor, requests_per_second=1e6)
    running.choose_good_boot()
    yield running
    running.stop()
    database.close()


@pytest.fixture
def proxy(local_server: Server) -> Iterator[CuttingProxy]:
    standing = CuttingProxy(local_server.port)
    yield standing
    standing.close()


@pytest.fixture
def make_software_host(
    local_server: Server, proxy: CuttingProxy, vendor: Vendor
) -> Callable[..., SoftwareHost]:
    def make(name: str = "host-1") -> SoftwareHost:
        tpm = SoftwareTpm()
        certificate = vendor.certify(tpm.ek_key.public_key(), end=NOW.replace(year=2090))
        directory = local_server.directory / name
        directory.mkdir()
        return SoftwareHost(directory, name, tpm, certificate, proxy.url)

    return make


@pytest.fixture
def software_host_1(
    local_server: Server, make_software_host: Callable[..., SoftwareHost]
) -> SoftwareHost:
    host = make_software_host()
    host.enrol(local_server.token("enrolment", "host-1"))
    host.start()
    assert host.works()
    return host


def test_a_token_whose_answer_was_lost_is_good_for_the_same_chip(
    local_server: Server, make_software_host: Callable[..., SoftwareHost]
) -> None:
    host = make_software_host()
    token = local_server.token("enrolment", "host-1")
    host.enrol(token)
    host.state.client_file.unlink()

    host.enrol(token)

    host.start()
    assert host.works()


def test_a_spent_token_is_not_good_for_another_chip_or_key(
    local_server: Server, make_software_host: Callable[..., SoftwareHost], vendor: Vendor
) -> None:
    host = make_software_host()
    token = local_server.token("enrolment", "host-1")
    host.enrol(token)
    for changed in ("ek", "ak"):
        other = SoftwareTpm()
        setattr(other, changed, getattr(SoftwareTpm(1), changed))
        host.tpm = other
        for secret in (token, ""):
            with pytest.raises(errors.Refused, match="token_unknown"):
                host.enrol(secret)


def test_a_removed_host_is_not_certified_again(
    local_server: Server, software_host_1: SoftwareHost
) -> None:
    local_server.database.transact(lambda c: hosts.remove(c, "host-1"))

    assert not software_host_1.works()

    error = str((software_host_1.state.load_status() or {})["error"])
    assert "this needs agent" in error
    with pytest.raises(errors.Refused, match="token_unknown"):
        software_host_1.certify_again()


def test_a_host_that_is_certified_again_keeps_its_result(
    local_server: Server, software_host_1: SoftwareHost
) -> None:
    before = local_server.database.transact(lambda c: results.find(c, "host-1"))
    software_host_1.state.client_file.unlink()

    software_host_1.agent.step()

    assert software_host_1.works()
    after = local_server.database.transact(lambda c: results.find(c, "host-1"))
    assert isinstance(after, results.Result)
    assert after == before
    assert after.level is Level.TRUSTED


def test_a_host_whose_certificate_ended_gets_another(
    local_server: Server, software_host_1: SoftwareHost, authority: Authority
) -> None:
    """TLS refuses the ended one before the server could say a word."""
    long_ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=3000)
    key = software_host_1.state.next_key()
    request = software_host.enrolment._certificate_request(key, "host-1")
    ended = authority.issue_agent("host-1", request, long_ago)
    software_host_1.state.keep_client(key, ended.public_bytes(serialization.Encoding.PEM).decode())
    software_host_1.start()

    software_host_1.agent.step()

    assert software_host_1.works()


def test_a_host_that_is_asked_all_the_time_renews_too(
    local_server: Server, software_host_1: SoftwareHost, renews_always: None
) -> None:
    before = software_host_1.state.client_file.read_bytes()
    software_host_1.care_now()
    local_server.call(
        "POST",
        "/v1/results",
        {"hosts": ["host-1"], "max_age_ms": 0, "wait_ms": 0},
        token=local_server.token("viewer"),
    )

    software_host_1.agent.step()

    assert software_host_1.state.client_file.read_bytes() != before
    assert software_host_1.works()


def test_both_certificates_are_good_until_the_new_one_was_seen(
    local_server: Server, software_host_1: SoftwareHost, renews_always: None, tmp_path: Path
) -> None:
    old = tmp_path / "old.pem"
    old.write_bytes(software_host_1.state.client_file.read_bytes())
    poll = {"boot_id": software_host_1.tpm.boot_id, "wait_ms": 0}
    software_host_1.agent._credentials.renew()
    new = software_host_1.state.client_file

    statuses = [
        local_server.call("POST", "/v1/challenge", poll, cert=str(shown)).status_code
        for shown in (old, new, old)
    ]

    assert statuses == [204, 204, 401]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_cut_and_every_full_disk_heals(
    local_server: Server,
    proxy: CuttingProxy,
    make_software_host: Callable[..., SoftwareHost],
    monkeypatch: pytest.MonkeyPatch,
    renews_always: None,
) -> None:
    disk = FullDisk(monkeypatch)
    draw = soak.randomness("renewal")
    needing_a_person = []
    for number in range(soak.part(1000)):
        host = make_software_host(f"host-{number}")
        if not _survives(local_server, proxy, disk, host, draw):
            needing_a_person.append(host.name)
        with contextlib.suppress(errors.NotFound):
            local_server.database.transact(lambda c, host=host: hosts.remove(c, host.name))
    assert needing_a_person == []


def _survives(
    server: Server, proxy: CuttingProxy, disk: FullDisk, host: SoftwareHost, draw: random.Random
) -> bool:
    """Return whether a host enrols by one token, and renews, through up to three faults each."""
    token = server.token("enrolment", host.name)
    faults = draw.randrange(4)
    for number in range(TRIES):
        _set_fault(proxy, disk, draw, number < faults)
        try:
            host.enrol(token)
            break
        except (errors.Unavailable, errors.InvalidMessage):
            continue
    else:
        return False
    host.start()
    faults = draw.randrange(4)
    # The rest heals what the faults left, whatever that is.
    for number in range(faults + 3):
        _set_fault(proxy, disk, draw, number < faults)
        host.care_now()
        host.agent.step()
    return host.works()


def _set_fault(proxy: CuttingProxy, disk: FullDisk, draw: random.Random, faulty: bool) -> None:
    proxy.budget = None
    disk.room = None
    if faulty and draw.random() < 0.5:
        proxy.budget = draw.randrange(MOST_BYTES)
    elif faulty:
        disk.room = draw.randrange(4)
