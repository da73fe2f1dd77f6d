# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.broker.attestation_server DIRECTORY PORT PKI`: a server whose hosts' levels a
campaign writes.

It speaks our protocol over TLS, and can be killed at any moment: the levels are in `levels.json`,
and each answer becomes a line of `answers`. A trusted one is noted before it leaves, any other one
after it left, so that a death in between makes nobody trusted by mistake nor untrusted without
having been told. While there is a file `cut`, connections end without an answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import tornado.httpserver
import tornado.web

from ovirt_tcp_plugin.messages import result
from ovirt_tcp_plugin.messages.result import AttestationResult, Finding, Level

LIFE_MS = 8_000
FINDINGS = {Level.UNTRUSTED: (Finding(8, "pcr_differs", "PCR 17 is not the known one"),)}


class Results(tornado.web.RequestHandler):
    """POST /v1/results."""

    def initialize(self, directory: Path) -> None:
        self.directory = directory

    async def post(self) -> None:
        if (self.directory / "cut").exists():
            self.detach().close()
            return
        levels = json.loads((self.directory / "levels.json").read_bytes())
        told = {
            name: Level(levels.get(name, "trusted"))
            for name in json.loads(self.request.body)["hosts"]
        }
        self.note(name for name, level in told.items() if level is Level.TRUSTED)
        hosts = [
            AttestationResult(name, level, FINDINGS.get(level, ()), 0, LIFE_MS)
            for name, level in told.items()
        ]
        self.set_header("Content-Type", "application/json")
        await self.finish(json.dumps({"hosts": [result.encode(one) for one in hosts]}))
        self.note((name for name, level in told.items() if level is Level.UNTRUSTED), "untrusted")

    def note(self, names: Iterable[str], level: str = "trusted") -> None:
        lines = "".join(f"{time.monotonic()} {name} {level}\n" for name in names)
        descriptor = os.open(
            self.directory / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        os.write(descriptor, lines.encode())
        os.close(descriptor)


async def serve(directory: Path, port: int, pki: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pki / "engine.pem", pki / "engine.key")
    application = tornado.web.Application(
        [("/v1/results", Results, {"directory": directory})], log_function=lambda _: None
    )
    tornado.httpserver.HTTPServer(application, ssl_options=tls).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
