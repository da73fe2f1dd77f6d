# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Everybody who attacks a verifier at once, in a process of its own; it prints what it did as JSON.

python -m tests.verifier.attackers PORT DIRECTORY SIZE SEED

DIRECTORY has ca.pem, agent.key, the client certificate `attacker.pem` of a host that turned bad,
and `stolen.json`: the evidence of another host. Each attack comes from an address of its own, as
from a machine of its own.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import random
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from ovirt_tcp_plugin.verifier.web.server import ROUTES

ANSWER_WITHIN_S = 20
IDLE, SLOW, HUGE, GARBAGE, IMPOSTOR, STRANGER = (f"127.0.0.{number}" for number in range(2, 8))
WHOLE = 1000
HUGE_SIZE = 100 * 1024 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Attackers:
    """The attacks, and what came of them.

    Args:
        size: how much; WHOLE is all of it.
        pause_s: between the starts of two connections of one attack, so that they come all the
            time.
    """

    def __init__(self, port: int, directory: Path, size: int, seed: str, pause_s: float) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        self._port, self._size, self._pause_s = port, size, pause_s
        self._random = random.Random(seed)
        self._plain = ssl.create_default_context(cafile=str(directory / "ca.pem"))
        self._host = ssl.create_default_context(cafile=str(directory / "ca.pem"))
        self._host.load_cert_chain(directory / "attacker.pem", directory / "agent.key")
        self._stolen = (directory / "stolen.json").read_bytes()

    async def attack(self) -> None:
        """Do all of it."""
        kept: list[asyncio.StreamWriter] = []
        await asyncio.gather(
            self._repeat(self._size, lambda: self._idle(kept)),
            self._repeat(self._size // 10, self._slow_head),
            self._repeat(self._size // 10, self._slow_body),
            self._repeat(self._size // 50, self._announced),
            self._repeat(self._size // 50, self._chunked),
            self._repeat(self._size // 5, self._noise),
            self._repeat(self._size // 5, self._noise_in_tls),
            self._rubbish_everywhere(),
            self._as_host(),
            self._as_nobody(),
        )
        for writer in kept:
            writer.close()

    async def _repeat(self, count: int, once: Callable[[], Awaitable[None]]) -> None:
        running = []
        for _ in range(max(count, 1)):
            running.append(asyncio.ensure_future(self._try(once)))
            await asyncio.sleep(self._pause_s)
        await asyncio.gather(*running)

    async def _try(self, once: Callable[[], Awaitable[None]]) -> None:
        """Do something that the server may end at any moment."""
        try:
            await once()
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            self.done["refused"] += 1

    @contextlib.asynccontextmanager
    async def _connection(self, address: str, tls: ssl.SSLContext | None) -> AsyncIterator[Streams]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self._port,
            ssl=tls,
            local_addr=(address, 0),
            server_hostname="127.0.0.1" if tls else None,
        )
        try:
            yield reader, writer
        finally:
            writer.close()

    async def _idle(self, kept: list[asyncio.StreamWriter]) -> None:
        _, writer = await asyncio.open_connection(
            "127.0.0.1",
            self._port,
            ssl=self._plain,
            local_addr=(IDLE, 0),
            server_hostname="127.0.0.1",
        )
        kept.append(writer)
        self.done["idle"] += 1

    async def _slow_head(self) -> None:
        await self._drip(b"POST /v1/enrolment HTTP/1.1\r\nHost: x\r\nX: ")

    async def _slow_body(self) -> None:
        await self._drip(
            b"y" * 30, b"POST /v1/enrolment HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
        )

    async def _drip(self, slowly: bytes, first: bytes = b"") -> None:
        async with self._connection(SLOW, self._plain) as streams:
            self.done["slow"] += 1
            for part in (first, *(bytes([octet]) for octet in slowly)):
                await _push(streams, part)
                await asyncio.sleep(0.1)

    async def _announced(self) -> None:
        await self._pour(f"Content-Length: {HUGE_SIZE}\r\n\r\n".encode(), b"x" * 65536)

    async def _chunked(self) -> None:
        await self._pour(
            b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"
        )

    async def _pour(self, head: bytes, block: bytes) -> None:
        path = self._random.choice(
            ["/v1/enrolment", "/v1/evidence", "/AttestationService/resources/PollHosts"]
        )
        async with self._connection(HUGE, self._plain) as streams:
            self.done["huge"] += 1
            await _push(streams, f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode() + head)
            for _ in range(HUGE_SIZE // 65536):
                await _push(streams, block)

    async def _noise(self) -> None:
        async with self._connection(GARBAGE, None) as (_, writer):
            writer.write(self._random.randbytes(self._random.randrange(1, 5000)))
            await writer.drain()
            self.done["noise"] += 1

    async def _noise_in_tls(self) -> None:
        async with self._connection(GARBAGE, self._plain) as (_, writer):
            writer.write(self._random.randbytes(self._random.randrange(1, 5000)) + b"\r\n\r\n")
            await writer.drain()
            self.done["noise in TLS"] += 1

    async def _rubbish_everywhere(self) -> None:
        bodies = [
            b"",
            b"{",
            b'{"hosts":]}',
            b"[" * 5000,
            b"\xff" * 100,
            b'{"hosts": [1e999]}',
            b"null",
        ]
        # A part of the campaign sends some of it to each route, else it would be longest at this.
        count = len(bodies) if self._size >= WHOLE else 2
        for route, _ in ROUTES:
            path = route.replace(r"([^/]+)", "x").split("(")[0]
            for body in self._random.sample(bodies, count):
                await self._post(GARBAGE, self._plain, path, body, "rubbish")
                await asyncio.sleep(self._pause_s)

    async def _as_host(self) -> None:
        """A host that turned bad has itself challenged, and answers with what another host said."""
        async with self._connection(IMPOSTOR, self._host) as streams:
            listening = json.dumps(
                {"boot_id": "00000000-0000-0000-0000-000000000001", "wait_ms": 10}
            ).encode()
            for number in range(self._size):
                if number % 10 == 0:
                    await self._send(streams, "/v1/challenge", listening)
                self.done[
                    f"as another host: {await self._send(streams, '/v1/evidence', self._stolen)}"
                ] += 1
                await asyncio.sleep(self._pause_s)

    async def _as_nobody(self) -> None:
        for _ in range(self._size // 10):
            await self._post(STRANGER, self._plain, "/v1/evidence", self._stolen, "as nobody")
            await asyncio.sleep(self._pause_s)

    async def _post(
        self, address: str, tls: ssl.SSLContext, path: str, body: bytes, what: str
    ) -> None:
        async def once() -> None:
            async with self._connection(address, tls) as streams:
                self.done[f"{what}: {await self._send(streams, path, body)}"] += 1

        await self._try(once)

    async def _send(self, streams: Streams, path: str, body: bytes) -> int:
        reader, writer = streams
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_WITHIN_S)
        size = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
        await reader.readexactly(size)
        return int(answer[9:12])


async def _push(streams: Streams, content: bytes) -> None:
    reader, writer = streams
    if writer.is_closing() or reader.at_eof():
        raise ConnectionResetError
    writer.write(content)
    await writer.drain()


async def _main(port: str, directory: str, size: str, seed: str, pause_s: str) -> None:
    attackers = Attackers(int(port), Path(directory), int(size), seed, float(pause_s))
    await attackers.attack()
    print(json.dumps(attackers.done, sort_keys=True))


if __name__ == "__main__":
    # That the server hung up is no news to them.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    asyncio.run(_main(*sys.argv[1:]))
