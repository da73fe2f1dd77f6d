# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""filterd as a process, and its answers as the engine's client reads them."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens


class Filterd:
    """The process, configured for one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.snapshots = directory, directory / "snapshot.d"
        self.writer = SnapshotWriter(self.snapshots)
        (self.port,) = free_ports(1)
        options = {
            "server": {"port": self.port},
            "snapshots": {"directory": str(self.snapshots), "owner": ""},
        }
        (directory / "filterd.yaml").write_text(json.dumps(options))
        self.command = [
            sys.executable,
            "-m",
            "ovirt_tcp_plugin.scheduler.main",
            "--config-dir",
            str(directory),
            "run",
        ]
        self.processes = Processes(directory)

    def start(self) -> None:
        self.processes.start("filterd", self.command, lambda: listens(self.port))

    @property
    def engine(self) -> ExternalScheduler:
        return ExternalScheduler(f"http://127.0.0.1:{self.port}/", 5)

    def post(self, body: bytes) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/", body, {"Content-Type": "text/xml"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.status == 200
        ((value,), _) = xmlrpc.client.loads(content)
        return value


def read_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return status line and body."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(1)
        assert part, head
        head += part
    lines = head.split(b"\r\n")
    (length,) = [
        int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")
    ]
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return lines[0], body
