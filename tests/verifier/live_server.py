# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The verifier's HTTPS server in a thread of the tests' process, over real TLS."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import requests

from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import public_keys
from ovirt_tcp_plugin.verifier.attestation import Attestation
from ovirt_tcp_plugin.verifier.authority import Authority, write_key
from ovirt_tcp_plugin.verifier.enrolment import EnrolmentService
from ovirt_tcp_plugin.verifier.metrics import VerifierMetrics
from ovirt_tcp_plugin.verifier.reference_values import ReferenceValueService
from ovirt_tcp_plugin.verifier.revocation import VendorTrust
from ovirt_tcp_plugin.verifier.settings import Appraisal, ServerOptions
from ovirt_tcp_plugin.verifier.signing import Signer
from ovirt_tcp_plugin.verifier.store import endorsements, references, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.tpm_review import EndorsementReview
from ovirt_tcp_plugin.verifier.web import server as web
from ovirt_tcp_plugin.verifier.web.handler import HandlerContext
from tests.verifier.enrolled import good_boot
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import Vendor

POLL = "/AttestationService/resources/PollHosts"
DEADLINE_MS = 400


class AdjustableClock(Clock):
    """The machine's clocks, which a test may set forward, each alone."""

    offset_ms = 0
    wall_offset_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.offset_ms

    def wall_ms(self) -> int:
        return super().wall_ms() + self.wall_offset_ms

    def wall(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.timezone.utc)


class Server:
    """The verifier's HTTPS server in a thread, and a client for it."""

    def __init__(
        self,
        directory: Path,
        database: Database,
        authority: Authority,
        vendor: Vendor,
        profile: str = "txt",
        **options: Any,
    ) -> None:
        self.database = database
        self.directory = directory
        self.clock = AdjustableClock()
        clock = self.clock
        certificate, key = authority.issue_server(["127.0.0.1"], clock.wall())
        (directory / "server.pem").write_bytes(certificate)
        write_key(directory / "server.key", key)
        (directory / "ca.pem").write_bytes(authority.pem)
        appraisal = Appraisal(profile=profile)
        values = ReferenceValueService(database, appraisal)
        metrics = VerifierMetrics()
        database.on_done = metrics.stored
        self.attestation = Attestation(database, values, metrics, appraisal, clock)
        trust = VendorTrust(vendor.authorities)
        self.enrolment = EnrolmentService(
            database, authority, trust, first_use=False, clock=clock, tpm12=False
        )
        self.review = EndorsementReview(database, trust, False, clock)
        all_options = {
            "certificate": directory / "server.pem",
            "address": "127.0.0.1",
            "port": 0,
            "poll_deadline": DEADLINE_MS / 1000,
            "connections_per_second": 1000.0,  # one for each call
            **options,
        }
        self.signer = Signer(database, authority, clock)
        listening = ServerOptions(**all_options)
        context = HandlerContext(
            database,
            authority,
            self.enrolment,
            self.review,
            self.attestation,
            self.signer,
            values,
            metrics,
            clock,
            listening,
        )
        self._tls = web.tls_context(
            directory / "server.pem", directory / "server.key", authority.pem
        )
        self._context = context
        self.accounts = context.accounts
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._started.wait(10)

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        server, self.port = web.serve(self._context, self._tls)
        self._started.set()
        self._relay = asyncio.ensure_future(self.attestation.relay())
        await self._stop.wait()
        self._relay.cancel()
        server.stop()
        await server.close_all_connections()

    def is_well(self) -> bool:
        """Return whether nothing ended it that would end a process of a server."""
        return self._thread.is_alive() and not self._relay.done()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def call(self, method: str, path: str, message: Any = None, **how: Any) -> requests.Response:
        url = f"https://127.0.0.1:{self.port}{path}"
        token = how.pop("token", None)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if isinstance(message, bytes):
            how["data"] = message
        elif message is not None:
            how["json"] = message
        headers.update(how.pop("headers", {}))
        within = how.pop("timeout", 20)
        return requests.request(
            method,
            url,
            headers=headers,
            verify=str(self.directory / "ca.pem"),
            timeout=within,
            **how,
        )

    def send(self, content: bytes) -> bytes:
        """Send bytes and return what comes back at first."""
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(content)
            return connection.recv(4096)

    def token(self, role: str, host: str = "") -> str:
        secret = f"secret of {role} {host} {time.monotonic_ns()}"
        self.add_token(secret, Token(role, host))
        return secret

    def add_token(self, secret: str, token: Token) -> None:
        self.database.transact(lambda c: tokens.add(c, secret, token))

    def register(self, tpm: SoftwareTpm, host: str) -> None:
        self.database.transact(lambda c: endorsements.add(c, public_keys.digest(tpm.ek), host))

    def choose_good_boot(self) -> None:
        self.database.transact(lambda c: references.put(c, good_boot()))

    def judge_all(self) -> None:
        asyncio.run_coroutine_threadsafe(self.attestation.judge_all(), self._loop).result(5)

    def waiters(self, host_name: str) -> int:
        long_poll = self.attestation._long_polls._by_host.get(host_name)
        return len(long_poll.waiters) if long_poll else 0


def level_of(server: Server, name: str = "host-1") -> str:
    hosts = server.call("GET", "/v1/hosts", token=server.token("viewer")).json()["hosts"]
    return next(host["level"] for host in hosts if host["host_name"] == name)
