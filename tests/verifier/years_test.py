# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Twelve years of a site in some seconds: no host is lost, and every end is told 60 days ahead.

The agents' code and the server's are the real ones, with the messages between them; TLS is
OpenSSL's path check at the simulated time, both ways. A person does only what the server says is to
be done, and does it late.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes as hashing
from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import enrolment as attester
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.credentials import Credentials
from ovirt_tcp_plugin.attester.trust import TrustedAuthorities
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import enrolment as messages
from ovirt_tcp_plugin.messages import public_keys
from ovirt_tcp_plugin.verifier import (
    authority,
    local_store,
    server_certificate,
    signing,
    upkeep,
)
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.enrolment import EnrolmentService
from ovirt_tcp_plugin.verifier.revocation import VendorTrust
from ovirt_tcp_plugin.verifier.settings import ServerOptions
from ovirt_tcp_plugin.verifier.store import hosts, tokens, verdict_keys
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token
from tests.verifier.software_host import SoftwareKey
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import Vendor

BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
YEARS = 12
STEP = datetime.timedelta(days=20)
# After the server says it, a person takes so long.
DAWDLE = datetime.timedelta(days=40)


class SimulatedClock(Clock):
    """Days pass when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN

    def wall(self) -> datetime.datetime:
        return self.now


class Site:
    """A server with what it has on disk, a broker's ca_file, and a person."""

    def __init__(self, directory: Path, vendor: Vendor) -> None:
        self.directory = directory
        self.clock = SimulatedClock()
        self.loop = asyncio.new_event_loop()
        self.authority = Authority.create(directory, BEGIN)
        self.options = ServerOptions(
            certificate=directory / "server.pem", key=directory / "server.key"
        )
        server_certificate.make(self.options, self.authority, ["verifier"], BEGIN)
        self.database = Database(f"sqlite:///{directory / 'v.db'}")
        local_store.claim(self.database, self.authority)
        signing.ensure_key(self.database, self.authority)
        self.service = EnrolmentService(
            self.database,
            self.authority,
            VendorTrust(vendor.authorities),
            False,
            self.clock,
            tpm12=False,
        )
        self.broker_ca = self.authority.pem
        self.told: dict[tuple[str, int], datetime.datetime] = {}
        self.acts: list[str] = []

    def check_server(self, believed: bytes) -> None:
        """Check the server's certificate as TLS does. Raises Unavailable."""
        chain = load_all(self.options.certificate.read_bytes())
        check_path(chain, load_all(believed), self.clock.now)

    def ends(self) -> list[upkeep.End]:
        ca = self.authority
        ends = [upkeep.End(upkeep.AUTHORITY, "", end_s(ca.certificate))]
        ends += [upkeep.End(upkeep.FORMER_AUTHORITY, "", end_s(root)) for root in ca.roots[1:]]
        ends.append(upkeep.End(upkeep.SERVER, "", end_s(server_certificate.load(self.options))))
        certificates = self.database.transact(hosts.certificate_ends)
        for name, end in certificates.items():
            if end is not None:
                ends.append(upkeep.End(upkeep.AGENT, name, end))
        return ends

    def live(self) -> None:
        """Have the person do what was told some time ago; note what is told now."""
        now_s = int(self.clock.now.timestamp())
        for end in upkeep.soon(self.ends(), now_s):
            since = self.told.setdefault((end.kind, end.end_s), self.clock.now)
            left = end.end_s - now_s
            if since == self.clock.now and end.kind in (upkeep.AUTHORITY, upkeep.SERVER):
                assert left > upkeep.WARNING_S - STEP.total_seconds()
            if self.clock.now - since >= DAWDLE:
                self._act(end.kind)

    def _act(self, kind: str) -> None:
        if kind == upkeep.SERVER:
            server_certificate.make(self.options, self.authority, ["verifier"], self.clock.now)
        elif kind == upkeep.AUTHORITY:
            self.authority = self.authority.renewed(self.clock.now)
            signing.protect_again(self.database, self.authority)
            local_store.claim(self.database, self.authority)
            server_certificate.make(self.options, self.authority, ["verifier"], self.clock.now)
            self.service.use(self.authority, self.service._vendors)
            # As the command says at its end.
            self.broker_ca = self.authority.pem
        else:
            return
        self.acts.append(kind)


class Client:
    """`VerifierClient` without sockets."""

    current = "https://verifier"

    def __init__(self, site: Site, ca_file: Path, state: Optional[AgentState]) -> None:
        self._site = site
        self._ca_file = ca_file
        self._state = state

    def trust(self, ca_file: Path) -> None:
        self._ca_file = ca_file

    def reconnect(self) -> None:
        pass

    def fail_over(self) -> bool:
        return True

    def post(self, path: str, message: Mapping[str, Any], wait_s: float = 0.0) -> object:
        site = self._site
        site.check_server(self._ca_file.read_bytes())
        if path == "/v1/enrolment":
            request = messages.decode_request(as_json(message))
            return messages.encode(self._run(site.service.begin(request)))
        if path == "/v1/enrolment/proof":
            proof = messages.decode_proof(as_json(message))
            return messages.encode(self._run(site.service.finish(proof)))
        host = self._host()
        if path == "/v1/authority":
            return {"authorities": site.authority.pem.decode()}
        if path == "/v1/certificate":
            request = base64.b64decode(message["certificate_request"])
            return {"certificate": self._run(site.service.renew(host, request))}
        return None

    def _run(self, work: Any) -> Any:
        return self._site.loop.run_until_complete(work)

    def _host(self) -> Any:
        assert self._state is not None
        site = self._site
        shown = load_all(self._state.client_file.read_bytes())[0]
        check_path([shown], site.authority.roots, site.clock.now)
        digest = shown.fingerprint(hashing.SHA256()).hex()
        site.database.transact(lambda c: hosts.see(c, digest, end_s(shown)))
        state = site.database.transact(lambda c: hosts.by_certificate(c, digest))
        if state is None:
            raise errors.Refused("unauthenticated", "this needs agent")
        return state.host


class Host:
    """A host whose agent looks after its credentials whenever it is on."""

    def __init__(self, site: Site, number: int, vendor: Vendor, directory: Path) -> None:
        self.site = site
        self.name = f"host-{number}"
        self.tpm = SoftwareTpm(number)
        end = BEGIN.replace(year=2090)
        self.ek_certificate = vendor.certify(self.tpm.ek_key.public_key(), end=end)
        (directory / self.name).mkdir(mode=0o700)
        self.state = AgentState(directory / self.name)
        ca_file = directory / f"{self.name}.pem"
        ca_file.write_bytes(site.authority.pem)
        self.trusted = TrustedAuthorities(self.state, ca_file)
        site.database.transact(
            lambda c: tokens.add(c, f"of {self.name}", Token("enrolment", self.name))
        )
        self._prove(f"of {self.name}")
        self.client = Client(site, self.trusted.file, self.state)
        self.credentials = Credentials(
            self.name,
            self.state,
            self.client,  # type: ignore[arg-type]
            self.trusted,
            lambda: self._prove(""),
            site.clock.wall,
        )

    def live(self) -> None:
        """Poll, and look after the credentials, as the agent's loop does."""
        try:
            self.client.post("/v1/challenge", {})
        except errors.Error:
            assert not self.credentials.is_good(), "a good certificate was refused"
            self.credentials.certify_again()
            self.client.post("/v1/challenge", {})
        self.credentials.renew()
        self.client.post("/v1/challenge", {})

    def _prove(self, token: str) -> None:
        request = messages.EnrolmentRequest(
            token, self.name, self.ek_certificate, self.tpm.ek.area, self.tpm.ak.area
        )
        client: Any = Client(self.site, self.trusted.file, None)
        attester._enrol_at_any(SoftwareKey(self.tpm), self.state, client, request)


def as_json(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode()


def end_s(certificate: x509.Certificate) -> int:
    return int(public_keys.life(certificate)[1].timestamp())


def load_all(pem: bytes) -> list[x509.Certificate]:
    return authority._load_certificates(pem)


def check_path(
    chain: list[x509.Certificate], believed: list[x509.Certificate], at: datetime.datetime
) -> None:
    """Return if OpenSSL finds a path at that time. Raises Unavailable."""
    store = crypto.X509Store()
    for root in believed:
        store.add_cert(crypto.X509.from_cryptography(root))
    store.set_time(at)
    links = [crypto.X509.from_cryptography(link) for link in chain]
    try:
        crypto.X509StoreContext(store, links[0], links[1:]).verify_certificate()
    except crypto.X509StoreContextError as e:
        raise errors.Unavailable("TLS", str(e)) from e


@pytest.mark.timeout(120)
def test_twelve_years_lose_no_host_and_tell_every_end_60_days_ahead(
    tmp_path: Path, vendor: Vendor
) -> None:
    site = Site(tmp_path, vendor)
    always_on = Host(site, 0, vendor, tmp_path)
    # Away for six years: its certificate ends meanwhile.
    away = Host(site, 1, vendor, tmp_path)
    signing_key = site.database.transact(verdict_keys.active)
    assert signing_key is not None
    steps = YEARS * 365 // STEP.days
    for number in range(steps):
        site.clock.now += STEP
        site.live()
        site.check_server(site.broker_ca)
        always_on.live()
        if not 365 < number * STEP.days < 7 * 365:
            away.live()
        active = site.database.transact(verdict_keys.active)
        assert active is not None
        assert active.key_id == signing_key.key_id
        signing._private_key(active, site.authority)
    assert site.acts.count(upkeep.AUTHORITY) == 1
    assert site.acts.count(upkeep.SERVER) >= 4
    assert site.authority.end > site.clock.now + 7 * 365 * datetime.timedelta(days=1)
    site.database.close()
    site.loop.close()
