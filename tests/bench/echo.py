# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The floor of an HTTPS service: tornado, the same certificates, and every body sent back.

python -m tests.bench.echo DIRECTORY PORT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import tornado.web

from ovirt_tcp_plugin.verifier.web.server import tls_context


class Echo(tornado.web.RequestHandler):
    def post(self) -> None:
        self.finish(self.request.body)


async def _serve(directory: Path, port: int) -> None:
    tls = tls_context(
        directory / "server.pem", directory / "server.key", (directory / "ca.pem").read_bytes()
    )
    application = tornado.web.Application([(r"/.*", Echo)], log_function=lambda _: None)
    application.listen(port, "127.0.0.1", ssl_options=tls)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
