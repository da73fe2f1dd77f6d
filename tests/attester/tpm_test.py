# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Transport and commands against a TPM that answers as the test says."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import tpm as tpm_module
from ovirt_tcp_plugin.attester import transport as transport_module
from ovirt_tcp_plugin.attester.tpm import Tpm, TpmError
from ovirt_tcp_plugin.attester.transport import Socket, Transport
from tests.attester.scripted_tpm import ScriptedTpm


def answer(rc: int, body: bytes = b"") -> bytes:
    return struct.pack(">HII", 0x8001, 10 + len(body), rc) + body


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tpm-") as made:
        yield Path(made)


@pytest.fixture
def scripted(directory: Path) -> Iterator[Callable[..., tuple[Tpm, ScriptedTpm]]]:
    with contextlib.ExitStack() as stack:

        def make(*answers: bytes) -> tuple[Tpm, ScriptedTpm]:
            peer = ScriptedTpm(directory / "tpm", list(answers))
            stack.callback(peer.close)
            tpm = Tpm(Transport(f"unix:{directory / 'tpm'}", 0.2))
            stack.callback(tpm.close)
            return tpm, peer

        yield make


Scripted = Callable[..., tuple[Tpm, ScriptedTpm]]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(
            struct.pack(">HII", 0x8001, 2**31, 0), "an answer of 2147483648 bytes", id="huge"
        ),
        pytest.param(
            struct.pack(">HII", 0x8001, 4097, 0), "an answer of 4097 bytes", id="one byte too large"
        ),
        pytest.param(
            struct.pack(">HII", 0x8001, 9, 0), "an answer of 9 bytes", id="smaller than a header"
        ),
        pytest.param(answer(0)[:5], "no answer within 0.2 s", id="half a header"),
        pytest.param(
            struct.pack(">HII", 0x8001, 100, 0), "no answer within 0.2 s", id="body missing"
        ),
        pytest.param(b"", "it closed the connection", id="closed"),
    ],
)
def test_an_answer_that_is_none(given: bytes, reason: str, scripted: Scripted) -> None:
    tpm, _ = scripted(given)

    with pytest.raises(errors.Unavailable) as caught:
        tpm.flush(1)
    assert reason in str(caught.value)


def test_a_lost_connection_is_made_anew(scripted: Scripted) -> None:
    tpm, peer = scripted(b"", answer(0))
    with pytest.raises(errors.Unavailable):
        tpm.flush(1)

    tpm.flush(1)

    assert peer.connections == tpm.transport.generation == 2


def test_a_late_answer_is_not_taken_for_the_next_ones(scripted: Scripted) -> None:
    tpm, peer = scripted(answer(0)[:9], answer(0x101))
    with pytest.raises(errors.Unavailable, match="no answer within"):
        tpm.flush(1)

    with pytest.raises(TpmError, match="the TPM is in failure mode"):
        tpm.flush(1)
    assert peer.connections == 2


def test_a_dripping_peer_gets_no_more_time() -> None:
    ours, theirs = socket.socketpair()
    channel = _channel_over(ours)
    ended = threading.Event()

    def drip() -> None:
        for octet in answer(0, bytes(90)):
            if ended.wait(0.02):
                return
            theirs.send(bytes([octet]))

    thread = threading.Thread(target=drip)
    thread.start()
    started = time.monotonic()
    with pytest.raises(errors.Unavailable, match="no answer within"):
        channel.exchange(answer(0), 0.2)
    assert time.monotonic() - started < 1
    ended.set()
    thread.join()
    theirs.close()
    channel.close()


def _channel_over(connection: socket.socket) -> Socket:
    channel = Socket.__new__(Socket)
    channel._address = "test"
    channel._socket = connection
    return channel


@pytest.mark.parametrize("code", tpm_module.RC_AGAIN)
def test_repeats_a_command_when_the_tpm_asks_for_it(code: int, scripted: Scripted) -> None:
    tpm, peer = scripted(answer(code), answer(code), answer(0))

    tpm.flush(1)

    assert len(peer.commands) == 3
    assert len(set(peer.commands)) == 1


class SlowTransport:
    """A TPM that takes a minute for each answer; the clock is its own."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.now_s = 0.0

    def exchange(self, command: bytes) -> bytes:
        self.now_s += 60
        return self.answers.pop(0)


def test_repeats_what_took_long_before_the_tpm_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Half of a key that takes a minute, and then "yielded".
    slow = SlowTransport(answer(0x908), answer(0))
    monkeypatch.setattr(
        transport_module,
        "time",
        SimpleNamespace(monotonic=lambda: slow.now_s, sleep=lambda seconds: None),
    )

    assert transport_module.until_ready(slow, b"command", (0x908,)) == answer(0)  # type: ignore[arg-type]


def test_repeats_only_for_so_long(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovirt_tcp_plugin.attester.transport.AGAIN_WITHIN_S", 0.05)
    tpm, peer = scripted(*[answer(0x922)] * 1000)

    with pytest.raises(TpmError, match="TPM2_FlushContext failed: .*0x922"):
        tpm.flush(1)
    assert len(peer.commands) < 20


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (0x100, "the TPM was not started by the firmware"),
        (0x902, "the TPM has no room for another key; something else keeps keys loaded"),
        (0x921, "the TPM is locked out after wrong authorizations"),
        (0x9A2, "the authorization failed: the hierarchy has a password"),
        (0x185, "the hierarchy is not enabled"),
        (0x1DF, "the key blob is of another TPM, or was changed"),
        (0x99D, "the policy of the key was not met"),
        (0xFFFFFFFF, "the TPM refused it"),
    ],
)
def test_says_in_a_sentence_what_the_tpm_refused(
    code: int, sentence: str, scripted: Scripted
) -> None:
    tpm, _ = scripted(answer(code))

    with pytest.raises(TpmError) as caught:
        tpm.read_public(1)
    assert (
        str(caught.value)
        == f"TPM is unavailable: TPM2_ReadPublic failed: {sentence} (code {code:#05x})"
    )


@pytest.mark.parametrize(
    ("code", "gone"), [(0x910, True), (0x918, True), (0x18B, True), (0x902, False), (0x1DF, False)]
)
def test_knows_when_a_handle_is_gone(code: int, gone: bool) -> None:
    assert TpmError("TPM2_Quote", code).handle_gone is gone


@pytest.mark.parametrize("body", [b"", b"\xff\xff", b"\0\x10short", b"\0\0\0\x01" + bytes(500)])
def test_an_answer_cut_short_is_malformed(body: bytes, scripted: Scripted) -> None:
    tpm, _ = scripted(answer(0, body))

    with pytest.raises(errors.InvalidMessage, match="malformed answer to TPM2_Quote"):
        tpm.quote(1, b"", {})


def test_a_pcr_read_without_progress_ends(scripted: Scripted) -> None:
    nothing = answer(0, struct.pack(">II", 1, 0) + struct.pack(">I", 0))
    tpm, peer = scripted(*[nothing] * 5)

    assert tpm.read_pcrs({"sha256": (1, 2)}) == {}
    assert len(peer.commands) == 1


def test_a_pcr_read_that_repeats_itself_ends(scripted: Scripted) -> None:
    other = struct.pack(">I", 1) + struct.pack(">HB3s", 0x000B, 3, b"\1\0\0")
    repeated = answer(
        0, struct.pack(">I", 1) + other + struct.pack(">I", 1) + b"\0\x20" + bytes(32)
    )
    tpm, peer = scripted(*[repeated] * 1000)

    tpm.read_pcrs({"sha256": (5,)})

    assert len(peer.commands) == tpm_module.MAX_PCR_READS


@pytest.mark.parametrize(
    "address",
    ["unix:/nonexistent/tpm", "tcp:127.0.0.1:1", "tcp:127.0.0.1:none", "/nonexistent/tpmrm0"],
)
def test_a_tpm_that_is_not_there(address: str) -> None:
    with pytest.raises(errors.Unavailable, match=f"^TPM {address} is unavailable: "):
        Tpm(Transport(address, 1.0, connect_within_s=0.05)).flush(1)


def test_speaks_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer(0))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        tpm = Tpm(Transport(f"tcp:127.0.0.1:{listener.getsockname()[1]}", 5.0))
        tpm.flush(1)
        tpm.close()
        thread.join(5)


def test_waits_for_a_tpm_that_is_starting(directory: Path) -> None:
    path = directory / "late"
    tpm = Tpm(Transport(f"unix:{path}", 1.0))
    listener = socket.socket(socket.AF_UNIX)

    def appear() -> None:
        listener.bind(str(path))
        listener.listen()
        connection, _ = listener.accept()
        connection.recv(100)
        connection.sendall(answer(0))
        connection.close()

    timer = threading.Timer(0.05, appear)
    timer.start()
    tpm.flush(1)
    timer.join()
    listener.close()
    tpm.close()


def test_a_device_is_written_once_and_read_once() -> None:
    """A terminal in raw mode stands in for the character device: one write there, one read back."""
    controller, terminal = os.openpty()
    tty.setraw(terminal)
    transport = Transport(os.ttyname(terminal), 1.0)
    os.write(controller, answer(0))

    Tpm(transport).flush(7)

    assert transport.managed
    assert os.read(controller, 100) == struct.pack(">HIII", 0x8001, 14, 0x165, 7)
    transport.close()
    os.close(controller)
    os.close(terminal)


def test_a_silent_device_is_given_up() -> None:
    controller, terminal = os.openpty()
    tty.setraw(terminal)
    tpm = Tpm(Transport(os.ttyname(terminal), 0.05))

    with pytest.raises(errors.Unavailable, match="no answer within 0.05 s"):
        tpm.flush(7)
    os.close(controller)
    os.close(terminal)
