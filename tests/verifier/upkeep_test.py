# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What ends is told 60 days ahead, and whose TPM lost its word is told until it is mended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.verifier import revocation, upkeep
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.revocation import Revocations, VendorTrust
from ovirt_tcp_plugin.verifier.store import endorsements, hosts, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.tpm_review import EndorsementReview
from ovirt_tcp_plugin.verifier.upkeep import DAY_S, End, Withdrawn
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server
from tests.verifier.vendor import Vendor

NOW_S = 1_000 * DAY_S


@pytest.fixture
def local_server(tmp_path: Path, authority: Authority, vendor: Vendor) -> Iterator[Server]:
    database = Database(f"sqlite:///{tmp_path / 'verifier.db'}")
    running = Server(tmp_path, database, authority, vendor)
    yield running
    running.stop()
    database.close()


@pytest.mark.parametrize("kind", upkeep.KINDS)
def test_each_kind_is_told_60_days_ahead_and_not_before(kind: str) -> None:
    for days, told in ((61, 0), (60, 1), (59, 1), (0, 1), (-5, 1)):
        ends = [End(kind, "x", NOW_S + days * DAY_S)]
        assert len(upkeep.duties(ends, [], NOW_S)) == told


def test_a_duty_names_the_first_end_the_hosts_and_the_next_step() -> None:
    ends = [End(upkeep.AGENT, f"host-{n}", NOW_S + (20 + n) * DAY_S) for n in range(12)]
    (duty,) = upkeep.duties(ends, [], NOW_S)
    assert "the client certificate ends in 20 days: host-0, " in duty.text
    assert duty.text.endswith("host-9 and 2 more")
    assert "journalctl -u ovirt-tcp-agent" in duty.next_step
    (ended,) = upkeep.duties([End(upkeep.SERVER, "", NOW_S - 1)], [], NOW_S)
    assert "has ended" in ended.text


def test_hosts_with_one_fault_are_one_duty() -> None:
    gone = [Withdrawn(f"host-{n}", "ek_removed", "the EK was removed") for n in (1, 2)]
    (duty,) = upkeep.duties([], gone, NOW_S)
    assert duty.text == "the EK was removed: host-1, host-2"


def test_the_server_tells_duties_and_ends(local_server: Server, vendor: Vendor) -> None:
    Agent(local_server, vendor).enrol()
    soon = local_server.clock.wall().timestamp() + 4.5 * DAY_S
    local_server.add_token("dated", Token("viewer", note="x", end_s=int(soon)))
    token = local_server.token("viewer")
    answer = local_server.call("GET", "/v1/upkeep", token=token).json()
    (duty,) = answer["duties"]
    assert "the token ends in 4 days" in duty["text"]
    metrics = local_server.call("GET", "/metrics", token=token).text
    for kind in ("server", "authority", "agent", "token"):
        assert f'ovirt_tcp_verifier_end_seconds{{kind="{kind}"}}' in metrics


@pytest.mark.parametrize("why", ["vendor_gone", "ek_removed", "first_use_off"])
def test_a_word_that_was_taken_back_is_told_and_the_host_stays(
    local_server: Server, vendor: Vendor, why: str
) -> None:
    agent = Agent(local_server, vendor)
    if why == "ek_removed":
        local_server.register(agent.tpm, "host-1")
    elif why == "first_use_off":
        local_server.enrolment._first_use = True
        agent.without_certificate()
    agent.enrol()
    local_server.choose_good_boot()
    agent.report()
    vendors = [] if why == "vendor_gone" else vendor.authorities
    trust = VendorTrust(vendors)
    review = EndorsementReview(local_server.database, trust, why != "first_use_off", Clock())
    if why == "ek_removed":
        asyncio.run(review.look())
        assert review.withdrawn == {}
        local_server.database.transact(lambda c: endorsements.remove(c, "host-1"))

    asyncio.run(review.look())

    assert review.withdrawn["host-1"].code == why
    local_server.review.withdrawn = review.withdrawn
    token = local_server.token("viewer")
    (host,) = local_server.call("GET", "/v1/hosts", token=token).json()["hosts"]
    assert host["level"] == "trusted"
    assert host["endorsement_fault"] == review.withdrawn["host-1"].text
    answer = local_server.call("GET", "/v1/upkeep", token=token).json()
    assert answer["withdrawn"][0]["code"] == why


def test_an_enrolled_host_whose_tpm_was_revoked_is_named_with_its_next_step(
    local_server: Server, vendor: Vendor
) -> None:
    agent = Agent(local_server, vendor).enrol()
    host = local_server.database.transact(lambda c: hosts.find(c, agent.name))
    assert host is not None
    certificate = host.ek_certificate
    lists = revocation.parse(vendor.revoke([certificate]), "maker.crl")
    review = EndorsementReview(
        local_server.database,
        VendorTrust(vendor.authorities, Revocations(lists)),
        False,
        Clock(),
    )

    asyncio.run(review.look())

    assert review.withdrawn[agent.name].code == "ek_revoked"
    local_server.review.withdrawn = review.withdrawn
    token = local_server.token("viewer")
    answer = local_server.call("GET", "/v1/upkeep", token=token).json()
    (duty,) = [duty for duty in answer["duties"] if "revoked" in duty["text"]]
    assert "ovirt-tcp hosts replace-tpm" in duty["next_step"]


def test_whoever_makes_enrolment_tokens_cannot_fill_the_database(
    local_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_WAITING", 2)
    maker = local_server.token("enrolment")
    statuses = []
    for number in range(3):
        message = {"host": f"host-{number}"}
        answer = local_server.call("POST", "/v1/enrolment/tokens", message, token=maker)
        statuses.append(answer.status_code)
    assert statuses == [200, 200, 409]
    with pytest.raises(errors.Conflict, match="remove some"):
        local_server.database.transact(
            lambda c: tokens.add_bounded(c, "x", Token("enrolment", "host-9"))
        )
