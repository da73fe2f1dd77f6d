# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A verifier in a process of its own, and many agents of it in this one.

For load, not for each agent's behaviour.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import ipaddress
import json
import secrets
import socket
import ssl
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from ovirt_tcp_plugin.messages import eventlog, evidence, json_fields
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.authority import Authority, write_key
from ovirt_tcp_plugin.verifier.store import hosts, references, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import EnrolledHost
from ovirt_tcp_plugin.verifier.store.tokens import Token
from tests.verifier.enrolled import certificate_request, good_boot
from tests.verifier.software_tpm import SoftwareTpm, firmware_events, launch_events

POLL = "/AttestationService/resources/PollHosts"
ANSWER_WITHIN_S = 75  # a long poll may last for 60
# The logs of all hosts, as the end of their message: to write it anew for each report would cost
# more than the rest.
LOGS = {
    "txt": eventlog.encode(launch_events(), ["sha256"]),
    "firmware": eventlog.encode(firmware_events(), ["sha256"]),
}
LOGS_MEMBER = (
    b', "logs": '
    + json.dumps({kind: json_fields.encode_blob(log) for kind, log in LOGS.items()}).encode()
    + b"}"
)


class Fleet:
    """Enrolled hosts and their verifiers.

    All hosts have chips with the same keys: nothing here looks at them.

    Args:
        directory: empty; configuration, certificates and SQLite's database go there.
        size: number of hosts.
        servers: number of verifiers.
        database_url: where they keep what they know; empty for SQLite.
        server: options of the verifiers' section `server`.
    """

    def __init__(
        self, directory: Path, size: int, servers: int = 1, database_url: str = "", **server: Any
    ) -> None:
        self.directory = directory
        self.ports = free_ports(servers)
        self.viewer, self.enroller, self.chooser = (secrets.token_urlsafe(16) for _ in range(3))
        self.database_url = database_url or f"sqlite:///{directory / 'verifier.db'}"
        self._authority = Authority.create(directory, _now())
        certificate, key = self._authority.issue_server(["127.0.0.1"], _now())
        (directory / "server.pem").write_bytes(certificate)
        write_key(directory / "server.key", key)
        for number in range(servers):
            self._configure(number, server)
        self._key = ec.generate_private_key(ec.SECP256R1())
        write_key(directory / "agent.key", self._key)
        self.agents = [Agent(self, number) for number in range(size)]
        database = Database(self.database_url)
        database.transact(self._enrol)
        database.close()

    @property
    def port(self) -> int:
        """The first verifier's."""
        return self.ports[0]

    def start(
        self, processes: Processes, module: str = "ovirt_tcp_plugin.verifier.main", number: int = 0
    ) -> None:
        """Start a verifier as `verifier-NUMBER`, and wait until it listens."""
        command = [
            sys.executable,
            "-m",
            module,
            "--config-dir",
            str(self._config_directory(number)),
            "run",
        ]
        processes.start(f"verifier-{number}", command, lambda: listens(self.ports[number]))

    def tls(self, certificate: Optional[Path] = None) -> ssl.SSLContext:
        """Return a client's context, that of an agent if a certificate is given."""
        context = ssl.create_default_context(cadata=self._authority.pem.decode("ascii"))
        if certificate is not None:
            context.load_cert_chain(certificate, self.directory / "agent.key")
        return context

    def viewing(self) -> Caller:
        """Return a caller that may look."""
        return Caller(self.port, self.tls(), f"Authorization: Bearer {self.viewer}\r\n")

    def issue(self, name: str, file: Path) -> str:
        """Write a client certificate, and return its digest as the store knows it."""
        certificate = self._authority.issue_agent(name, self._request, _now())
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return certificate.fingerprint(hashes.SHA256()).hex()

    @functools.cached_property
    def _request(self) -> bytes:
        return certificate_request(self._key)

    def _config_directory(self, number: int) -> Path:
        return self.directory / f"config-{number}"

    def _configure(self, number: int, server: Mapping[str, Any]) -> None:
        files = {
            "certificate": str(self.directory / "server.pem"),
            "key": str(self.directory / "server.key"),
        }
        content = {
            "server": {"address": "127.0.0.1", "port": self.ports[number], **files, **server},
            "store": {"directory": str(self.directory), "url": self.database_url},
            "enrolment": {"ek_authorities": str(self.directory)},
        }
        self._config_directory(number).mkdir()
        (self._config_directory(number) / "verifier.yaml").write_text(yaml.safe_dump(content))

    def _enrol(self, connection: Connection) -> None:
        tokens.add(connection, self.viewer, Token("viewer"))
        tokens.add(connection, self.enroller, Token("enrolment"))
        tokens.add(connection, self.chooser, Token("policy"))
        references.put(connection, good_boot())
        tpm = SoftwareTpm()
        for agent in self.agents:
            digest = self.issue(agent.name, agent.certificate)
            tokens.add(connection, agent.name, Token("enrolment", agent.name))
            bound = EnrolledTpm20(agent.name, tpm.ek, tpm.ak)
            hosts.enrol(
                connection, agent.name, EnrolledHost(bound, "", f"ek of {agent.name}", b"", digest)
            )


class Caller:
    """A connection that is kept, for one request at a time."""

    def __init__(
        self, port: int, tls: ssl.SSLContext, headers: str = "", address: str = "127.0.0.1"
    ) -> None:
        self.port, self._tls, self._headers, self._address = port, tls, headers, address
        self._streams: Optional[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = None
        self.transferred = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the connection, opening it first if there is none."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self._tls, local_addr=(self._address, 0)
            )
            raw: socket.socket = self._streams[1].get_extra_info("socket")
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._streams

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer, and count the bytes of both ways."""
        reader, writer = await self.connect()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._headers}Content-Length: "
            f"{len(body)}\r\n\r\n"
        )
        request = head.encode() + body
        writer.write(request)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_WITHIN_S)
        size = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
        self.transferred += len(request) + len(answer) + size
        return int(answer[9:12]), await reader.readexactly(size)

    async def ask(self, path: str, message: Mapping[str, Any]) -> Any:
        """Return the JSON of a good answer."""
        status, content = await self.post(path, json.dumps(message).encode())
        assert status == 200, content
        return json.loads(content)

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Agent:
    """A host that boots anew for each report.

    So it is challenged at once, without anybody's question.
    """

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.name = f"host-{number}"
        self.certificate = fleet.directory / f"{self.name}.pem"
        self._address = str(ipaddress.IPv4Address("127.1.0.1") + number)
        self.tpm = SoftwareTpm()
        self._fleet = fleet

    @functools.cached_property
    def caller(self) -> Caller:
        """Its connection."""
        return Caller(self._fleet.port, self._fleet.tls(self.certificate), address=self._address)

    def go_to(self, port: int) -> None:
        """Talk to another verifier from now on."""
        self.caller = Caller(port, self._fleet.tls(self.certificate), address=self._address)

    async def attest(self) -> str:
        """Reboot, report, and return the level that the verifier answers."""
        self.reboot()
        challenge = await self.next_challenge(self.listening())
        assert challenge is not None
        return await self.send(self.report(challenge))

    async def attest_again(self) -> str:
        """Report again in the same boot, unasked, and name the logs that the verifier has."""
        challenge = await self.next_challenge(self.offering())
        assert challenge is not None
        assert challenge.known_logs
        return await self.send(self.short_report(challenge))

    async def next_challenge(self, question: bytes) -> Optional[evidence.Challenge]:
        """Poll once; return the challenge, None if there is none."""
        status, content = await self.caller.post("/v1/challenge", question)
        assert status in (200, 204), content
        return evidence.decode_challenge(json.loads(content)) if status == 200 else None

    async def send(self, report: bytes) -> str:
        """Return the level that the verifier answers to this evidence."""
        status, content = await self.caller.post("/v1/evidence", report)
        assert status == 200, content
        return str(json.loads(content)["level"])

    def reboot(self) -> None:
        """Begin another boot of the same software."""
        self.tpm.boot_id = str(uuid.uuid4())
        self.tpm.reset_count += 1

    def listening(self, wait_ms: int = 5000) -> bytes:
        """Return the message of a long poll."""
        return json.dumps({"boot_id": self.tpm.boot_id, "wait_ms": wait_ms}).encode()

    def offering(self) -> bytes:
        """Return the message of a long poll of an agent that wants to report."""
        return json.dumps({"boot_id": self.tpm.boot_id, "wait_ms": 5000, "offer": True}).encode()

    def short_report(self, challenge: evidence.Challenge) -> bytes:
        """Return the evidence that answers a challenge and names the logs."""
        nonce = IssuedNonce(challenge, self.name, 0, 0)
        reported = self.tpm.report(nonce, logs={}, log_digests=challenge.known_logs)
        return json.dumps(evidence.encode(reported)).encode()

    def report(self, challenge: evidence.Challenge) -> bytes:
        """Return the evidence that answers a challenge."""
        reported = self.tpm.report(IssuedNonce(challenge, self.name, 0, 0), logs={})
        members = evidence.encode(reported)
        del members["logs"]
        return json.dumps(members).encode()[:-1] + LOGS_MEMBER


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
