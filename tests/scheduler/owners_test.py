# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""To whom the other end of a connection belongs, as the kernel tells."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ovirt_tcp_plugin.scheduler.owners import Gone, Owners, _question

NOBODY = 65534
CONNECT = """
import encodings.idna, os, socket, sys
os.setuid(int(sys.argv[1]))
peer = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def owners() -> Iterator[Owners]:
    asked = Owners()
    yield asked
    asked.close()


def test_ones_own(listener: socket.socket, owners: Owners) -> None:
    with socket.create_connection(listener.getsockname()):
        peer, _ = listener.accept()
        with peer:
            assert owners.uid(peer) == os.getuid()


def test_over_ipv6(owners: Owners) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with listening, socket.create_connection(listening.getsockname()[:2]):
        peer, _ = listening.accept()
        with peer:
            assert owners.uid(peer) == os.getuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_users(listener: socket.socket, owners: Owners) -> None:
    command = [sys.executable, "-c", CONNECT, str(NOBODY), str(listener.getsockname()[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        peer, _ = listener.accept()
        with peer:
            assert owners.uid(peer) == NOBODY
        process.kill()


def test_one_that_is_closed_is_nobodys(listener: socket.socket, owners: Owners) -> None:
    """The kernel says that such a one is root's."""
    socket.create_connection(listener.getsockname()).close()
    peer, _ = listener.accept()
    with peer, pytest.raises(Gone):
        owners.uid(peer)


def test_where_the_kernel_does_not_tell_it_is_unknown(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no such protocol")

    with socket.create_connection(listener.getsockname()):
        peer, _ = listener.accept()
        monkeypatch.setattr(socket, "socket", refuse)
        owners = Owners()
        assert owners.uid(peer) is None
        peer.close()


def test_where_the_kernel_has_no_such_table_it_is_unknown_and_not_gone(
    listener: socket.socket, owners: Owners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says ENOENT then, as for a socket that is not there: nobody could connect any more."""
    monkeypatch.setattr("ovirt_tcp_plugin.scheduler.owners._DIAGNOSED", socket.IPPROTO_ICMP)
    with socket.create_connection(listener.getsockname()):
        peer, _ = listener.accept()
        with peer:
            assert owners.uid(peer) is None


def test_an_answer_that_comes_late_is_not_taken_for_another_sockets(
    listener: socket.socket, owners: Owners
) -> None:
    with socket.create_connection(listener.getsockname()):
        peer, _ = listener.accept()
        with peer:
            assert owners._channel is not None
            # Nobody reads the answer to this.
            owners._channel.send(_question(peer, 77))
            assert owners.uid(peer) == os.getuid()
            with pytest.raises(BlockingIOError):
                owners._channel.recv(1)
