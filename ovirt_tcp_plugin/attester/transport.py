# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Carries commands to a TPM and its answers back; knows nothing of their meaning.

Addresses: `/dev/tpmrm0` (the kernel's resource manager), `unix:PATH` and `tcp:HOST:PORT` (a
software TPM).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Optional, Union

from ovirt_tcp_plugin import errors

# TPM_PT_MAX_RESPONSE_SIZE of all known TPMs, and the kernel's buffer.
MAX_ANSWER_SIZE = 4096
HEADER_SIZE = 10
# A software TPM's sockets appear one after the other while it starts.
CONNECT_WITHIN_S = 5.0
CONNECT_RETRY_S = 0.01
# Self tests of slow chips last some seconds. It counts from the first such answer on: what the TPM
# did before, such as half of a key, may have taken a minute.
AGAIN_WITHIN_S = 10.0
AGAIN_FIRST_S = 0.001
AGAIN_MOST_S = 0.25


class TpmRefusal(errors.Unavailable):
    """A TPM answered, and refused a command."""


class Device:
    """A TPM character device: one write, one read. The kernel keeps apart who loaded what."""

    managed = True

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            # Without O_NONBLOCK the write itself lasts as long as the command, and no deadline
            # would hold.
            self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            raise errors.Unavailable(f"TPM {path}", e.strerror or str(e)) from e

    def exchange(self, command: bytes, timeout_s: float) -> bytes:
        """Return the answer to `command`. Raises Unavailable."""
        try:
            os.write(self._descriptor, command)
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                raise errors.Unavailable(f"TPM {self._path}", f"no answer within {timeout_s:g} s")
            return os.read(self._descriptor, MAX_ANSWER_SIZE)
        except OSError as e:
            raise errors.Unavailable(f"TPM {self._path}", e.strerror or str(e)) from e

    def close(self) -> None:
        """Give the device back; the kernel forgets what was loaded through it."""
        os.close(self._descriptor)


class Socket:
    """A software TPM's data channel.

    It serves one connection at a time and keeps what was loaded.
    """

    managed = False

    def __init__(self, address: str, connect_within_s: float = CONNECT_WITHIN_S) -> None:
        self._address = address
        self._socket = _connect(address, connect_within_s)

    def exchange(self, command: bytes, timeout_s: float) -> bytes:
        """Return the answer to `command`. Raises Unavailable."""
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(command)
            header = self._receive(HEADER_SIZE, deadline)
            (size,) = struct.unpack(">I", header[2:6])
            if not HEADER_SIZE <= size <= MAX_ANSWER_SIZE:
                raise errors.Unavailable(f"TPM {self._address}", f"an answer of {size} bytes")
            return header + self._receive(size - HEADER_SIZE, deadline)
        except socket.timeout as e:
            raise errors.Unavailable(
                f"TPM {self._address}", f"no answer within {timeout_s:g} s"
            ) from e
        except OSError as e:
            raise errors.Unavailable(f"TPM {self._address}", e.strerror or str(e)) from e

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _receive(self, size: int, deadline: float) -> bytes:
        received = b""
        while len(received) < size:
            # Each wait gets only what is left: a peer that drips bytes does not extend its time.
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            more = self._socket.recv(size - len(received))
            if not more:
                raise errors.Unavailable(f"TPM {self._address}", "it closed the connection")
            received += more
        return received


class Transport:
    """A connection to a TPM that is made when needed and made again after it was lost.

    Attributes:
        generation: grows with each connection; what was loaded in an earlier one may be gone.
    """

    def __init__(
        self, address: str, timeout_s: float, connect_within_s: float = CONNECT_WITHIN_S
    ) -> None:
        self.address = address
        self.generation = 0
        self._timeout_s = timeout_s
        self._connect_within_s = connect_within_s
        self._channel: Optional[Union[Device, Socket]] = None

    @property
    def managed(self) -> bool:
        """Whether a resource manager forgets what a connection left loaded."""
        return not self.address.startswith(("unix:", "tcp:"))

    def exchange(self, command: bytes) -> bytes:
        """Return the TPM's answer, at most MAX_ANSWER_SIZE bytes and at least a header.

        Raises:
            Unavailable: no TPM there, no answer in time, or one that is no answer; the next call
                connects again.
        """
        try:
            channel = self.connect()
            answer = channel.exchange(command, self._timeout_s)
        except BaseException:
            # Whatever stopped the exchange, its answer may still come and must not be taken for the
            # next one's.
            self.close()
            raise
        if len(answer) < HEADER_SIZE or struct.unpack(">I", answer[2:6]) != (len(answer),):
            self.close()
            raise errors.Unavailable(f"TPM {self.address}", "an answer cut short")
        return answer

    def connect(self) -> Union[Device, Socket]:
        """Return the connection, making it when there is none. Raises Unavailable."""
        if self._channel is None:
            if self.managed:
                self._channel = Device(self.address)
            else:
                self._channel = Socket(self.address, self._connect_within_s)
            self.generation += 1
        return self._channel

    def close(self) -> None:
        """End the connection if there is one."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.close()
            self._channel = None


def until_ready(transport: Transport, command: bytes, again: Sequence[int]) -> bytes:
    """Return the answer to `command`, which is sent again while its return code is one of `again`.

    Raises:
        Unavailable: the TPM does not answer.
    """
    deadline = None
    pause = AGAIN_FIRST_S
    while True:
        answer = transport.exchange(command)
        (rc,) = struct.unpack(">I", answer[6:HEADER_SIZE])
        if rc not in again:
            return answer
        now = time.monotonic()
        if deadline is None:
            deadline = now + AGAIN_WITHIN_S
        if now + pause >= deadline:
            return answer
        time.sleep(pause)
        pause = min(pause * 2, AGAIN_MOST_S)


def _connect(address: str, within_s: float) -> socket.socket:
    """Return a connected socket.

    A peer that is still starting is tried again until `within_s` seconds are over.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            return _connect_once(address, max(deadline - time.monotonic(), 0.001))
        except (OSError, ValueError) as e:
            if isinstance(e, ValueError) or time.monotonic() + CONNECT_RETRY_S >= deadline:
                raise errors.Unavailable(
                    f"TPM {address}", getattr(e, "strerror", None) or str(e)
                ) from e
        time.sleep(CONNECT_RETRY_S)


def _connect_once(address: str, timeout_s: float) -> socket.socket:
    kind, _, place = address.partition(":")
    if kind == "tcp":
        host, _, port = place.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection
