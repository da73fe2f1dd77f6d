# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Other users of the engine's machine, who want filterd to have no time, room or port for the
engine.

python -m tests.scheduler.neighbours KIND PORT COUNT [UID]
"""

from __future__ import annotations

import collections
import contextlib
import encodings.idna  # noqa: F401 - another user may not be able to read it later
import os
import resource
import socket
import sys
import threading
import time
import uuid
import xmlrpc.client

from ovirt_tcp_plugin.lab.engine.external_scheduler import request

MIB = 1024 * 1024
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n"
VM = str(uuid.UUID(int=2))


def call(body: bytes) -> bytes:
    """Return a request with its head."""
    return HEAD % len(body) + body


def host_ids(count: int) -> list[str]:
    """Return ids of hosts that no pool has."""
    return [str(uuid.UUID(int=(0xBAD << 112) + number)) for number in range(count)]


def long_bodies() -> list[bytes]:
    """Return the dearest bodies: calls for more hosts than there are, for as many, and ones of a
    MiB of other shapes."""
    typed = xmlrpc.client.dumps((["TrustedHosts"], host_ids(14_000), VM, {}), "runFilters").encode()
    many = request("runFilters", [["TrustedHosts"], host_ids(20_000), VM, {}])
    most = request("runFilters", [["TrustedHosts"], host_ids(10_000), VM, {}])
    tags = b"<a>" + b"<b/>" * (MIB // 4 - 4) + b"</a>"
    return [call(body[:MIB]) for body in (many, typed, most, tags)]


def bodies(port: int, count: int) -> None:
    """Send one long body after the other over each of so many connections that are kept."""
    sent = long_bodies()

    def keep_sending(number: int) -> None:
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port)) as peer,
            ):
                while True:
                    peer.sendall(sent[number % len(sent)])
                    if not peer.recv(65536):
                        break

    for number in range(count):
        threading.Thread(target=keep_sending, args=(number,), daemon=True).start()
    threading.Event().wait()


def fresh(port: int, count: int) -> None:
    """Send each call over a connection of its own, so many at once: nobody was served less."""
    sent = call(request("runFilters", [["TrustedHosts"], host_ids(1000), VM, {}]))
    peers: collections.deque[socket.socket] = collections.deque()
    while True:
        with contextlib.suppress(OSError):
            peers.append(socket.create_connection(("127.0.0.1", port)))
            peers[-1].setblocking(False)
            peers[-1].send(sent)
        while len(peers) > count:
            peers.popleft().close()


def flood(port: int, count: int) -> None:
    """Open connections as fast as possible, and keep so many."""
    peers: collections.deque[socket.socket] = collections.deque()
    while True:
        with contextlib.suppress(OSError):
            peers.append(socket.create_connection(("127.0.0.1", port)))
        while len(peers) > count:
            peers.popleft().close()


def opening(port: int, count: int) -> None:
    """Open so many connections again and again, and send a byte of a request now and then."""
    while True:
        peers = []
        for number in range(count):
            with contextlib.suppress(OSError):
                peers.append(socket.create_connection(("127.0.0.1", port)))
                peers[-1].send(HEAD[: number % len(HEAD)])
            time.sleep(1 / count)
        for peer in peers:
            peer.close()


def unfinished(port: int, count: int) -> None:
    """Hold as much of a call as it takes without its last byte, over so many connections."""
    sent = call(request("runFilters", [["TrustedHosts"], host_ids(10_000), VM, {}]))[:-1]
    peers: collections.deque[socket.socket] = collections.deque()
    while True:
        with contextlib.suppress(OSError):
            peers.append(socket.create_connection(("127.0.0.1", port)))
            peers[-1].settimeout(1)
            peers[-1].sendall(sent)
        while len(peers) > count:
            peers.popleft().close()


def idle(port: int, count: int) -> None:
    """Open so many connections, and open again what ends."""
    peers: list[socket.socket] = []
    while True:
        for _ in range(count):
            with contextlib.suppress(OSError):
                peers.append(socket.create_connection(("127.0.0.1", port)))
        time.sleep(1)
        for peer in peers:
            peer.close()
        peers.clear()


KINDS = {kind.__name__: kind for kind in (bodies, fresh, flood, opening, unfinished, idle)}


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    if len(sys.argv) > 4:
        os.setuid(int(sys.argv[4]))
    KINDS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
