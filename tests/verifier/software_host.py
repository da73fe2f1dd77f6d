# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The real agent on a TPM of the test's own, and what goes wrong between it and its server."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from ovirt_tcp_plugin import clock, durable
from ovirt_tcp_plugin.attester import credentials, enrolment
from ovirt_tcp_plugin.attester.agent import Agent
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.credentials import Credentials
from ovirt_tcp_plugin.attester.hook_files import HookFiles
from ovirt_tcp_plugin.attester.measure import Sources
from ovirt_tcp_plugin.attester.stop_flag import StopFlag
from ovirt_tcp_plugin.attester.trust import TrustedAuthorities
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import enrolment as messages
from ovirt_tcp_plugin.messages import tpm2
from tests.verifier.software_tpm import SoftwareTpm


class NoPauses(StopFlag):
    """Its pauses take no time."""

    def pause(self, seconds: float) -> None:
        pass


class SoftwareKey:
    """The AK of a `SoftwareTpm`, as `measure.QuotingKey` and `measure.PcrReader`."""

    def __init__(self, tpm: SoftwareTpm) -> None:
        self.tpm = tpm

    def quote(self, qualifying_data: bytes, selection: tpm2.Selection) -> tuple[bytes, bytes]:
        # The agent reads this machine's clock, before which no TPM of it was switched on.
        self.tpm.clock = clock.boottime_ms() + 1000
        return self.tpm.quote(qualifying_data, selection)

    def fits(self, attest: bytes, pcrs: tpm2.PcrValues) -> bool:
        return True

    def activate(self, credential: bytes, encrypted_secret: bytes) -> bytes:
        return self.tpm.activate(credential, encrypted_secret)

    def unload(self) -> None:
        pass

    def read_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        return {
            bank: {index: self.tpm.pcrs[index] for index in indices}
            for bank, indices in selection.items()
        }


class SoftwareHost:
    """A host with the real agent.

    Args:
        url: of its server, or of what stands between.
        ek_certificate: DER.
    """

    def __init__(
        self, directory: Path, name: str, tpm: SoftwareTpm, ek_certificate: bytes, url: str
    ) -> None:
        self.name = name
        self.tpm = tpm
        self._ek_certificate = ek_certificate
        self._url = url
        (directory / "agent").mkdir(mode=0o700)
        (directory / "hooks").mkdir()
        self.state = AgentState(directory / "agent")
        # What the real chip's key would leave there.
        (directory / "agent" / "ak.json").write_text("{}")
        self.ca_file = directory.parent / "ca.pem"
        self.trusted = TrustedAuthorities(self.state, self.ca_file)
        self._hooks = HookFiles(directory / "hooks")
        boot_id = directory / "boot_id"
        boot_id.write_text(tpm.boot_id)
        log = directory / "txt"
        log.write_bytes(tpm.log or b"")
        self._sources = Sources(boot_id, {"txt": log})
        self.agent = self.start()

    def start(self) -> Agent:
        """Start the agent, as after a boot."""
        client = VerifierClient([self._url], self.trusted.file, self.state.client_file)
        key = SoftwareKey(self.tpm)
        care = Credentials(
            self.name, self.state, client, self.trusted, self.certify_again, Clock().wall
        )
        self.agent = Agent(
            self.name,
            self.state,
            key,
            key,
            client,
            self._sources,
            self._hooks,
            1.0,
            NoPauses(),
            credentials=care,
        )
        return self.agent

    def enrol(self, token: str) -> None:
        """As `ovirt-tcp-agent enrol`."""
        with contextlib.closing(self._stranger()) as client:
            request = self._request(token)
            enrolment._enrol_at_any(SoftwareKey(self.tpm), self.state, client, request)

    def certify_again(self) -> None:
        """As `HostTpm.certify_again`."""
        with contextlib.closing(self._stranger()) as client:
            request = self._request("")
            enrolment.certify_again(SoftwareKey(self.tpm), self.state, client, request)

    def works(self) -> bool:
        """Return whether a round of the agent goes well."""
        self.agent.step()
        status = self.state.load_status() or {}
        return not status.get("error")

    def care_now(self) -> None:
        """Have the agent look after its certificate in its next round."""
        self.agent._care_at_s = 0.0

    def _stranger(self) -> VerifierClient:
        return VerifierClient([self._url], self.trusted.file, None)

    def _request(self, token: str) -> messages.EnrolmentRequest:
        return messages.EnrolmentRequest(
            token, self.name, self._ek_certificate, self.tpm.ek.area, self.tpm.ak.area
        )


class CuttingProxy:
    """Stands between agents and their server, and cuts every connection once it has passed so much.

    Attributes:
        budget: bytes that still pass, both ways together; None for no end.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.budget: Optional[int] = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for source, sink in ((client, server), (server, client)):
                    arguments = (source, sink)
                    threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                passing = self._take(len(chunk))
                sink.sendall(chunk[:passing])
                if passing < len(chunk):
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _take(self, size: int) -> int:
        with self._lock:
            if self.budget is None:
                return size
            passing = min(size, self.budget)
            self.budget -= passing
            return passing


class FullDisk:
    """The agent's disk, which has room for some more files.

    Attributes:
        room: files that can still be written; None for no end.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: Optional[int] = None
        self._replace = durable.replace
        monkeypatch.setattr(durable, "replace", self._write)

    def _write(self, path: Path, content: bytes) -> None:
        if self.room is not None:
            if self.room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= 1
        self._replace(path, content)


@pytest.fixture
def renews_always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have every look at a certificate replace it."""
    monkeypatch.setattr(credentials, "RENEW_BELOW", 2.0)
    yield
