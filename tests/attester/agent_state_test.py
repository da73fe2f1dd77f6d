# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""State on disk: whole or absent, and read strictly."""

from __future__ import annotations

import json
import random
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import enrolment
from ovirt_tcp_plugin.attester.agent_state import AK_FILE, CLIENT_FILE, STATUS_FILE, AgentState
from ovirt_tcp_plugin.attester.keys import KeyBlob
from ovirt_tcp_plugin.verifier.authority import Authority
from tests.attester.fake_verifier import NOW, issue

# A P-256 key as TPMT_PUBLIC; nobody has its private half.
AREA = (
    bytes.fromhex("0023000b00050472000000100018000b00030010") + (b"\0\x20" + bytes(31) + b"\1") * 2
)
BLOB = KeyBlob("rsa-2048", AREA, b"private")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def kept(directory: Path) -> AgentState:
    return AgentState(directory)


def test_keeps_the_ak(kept: AgentState, directory: Path) -> None:
    assert kept.load_ak() is None

    kept.keep_ak(BLOB)

    assert AgentState(directory).load_ak() == BLOB
    assert stat.S_IMODE((directory / AK_FILE).stat().st_mode) == 0o600


def test_keeps_the_client_key_with_its_certificate(kept: AgentState, authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    kept.keep_client(key, issue(authority, enrolment._certificate_request(key, "host-1")))

    kept.check_client()
    assert stat.S_IMODE(kept.client_file.stat().st_mode) == 0o600


def test_a_new_ak_ends_the_certificate_of_the_old_one(
    kept: AgentState, authority: Authority
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    kept.keep_client(key, issue(authority, enrolment._certificate_request(key, "host-1")))

    kept.keep_ak(BLOB)

    with pytest.raises(
        errors.InvalidConfig, match="this host is not enrolled: run `ovirt-tcp-agent enrol`"
    ):
        kept.check_client()


def test_refuses_a_certificate_for_another_key(kept: AgentState, authority: Authority) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    with pytest.raises(errors.InvalidMessage, match="it is for another key than the one requested"):
        kept.keep_client(other, issue(authority, enrolment._certificate_request(key, "host-1")))
    assert not kept.client_file.exists()


def test_refuses_a_certificate_that_is_none(kept: AgentState) -> None:
    with pytest.raises(errors.InvalidMessage, match="not a PEM certificate"):
        kept.keep_client(ec.generate_private_key(ec.SECP256R1()), "certificate")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param(b"\x02\x01\x02", b"\x02\x01\x2a", id="version 43"),
        pytest.param(
            b"\x2a\x86\x48\xce\x3d\x02\x01",
            b"\x2a\x86\x48\xce\x3d\x02\x77",
            id="unknown kind of key",
        ),
    ],
)
def test_refuses_a_certificate_of_an_unknown_form(
    kept: AgentState, authority: Authority, good: bytes, bad: bytes
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issued = issue(authority, enrolment._certificate_request(key, "host-1"))
    der = ssl.PEM_cert_to_DER_cert(issued).replace(good, bad, 1)

    with pytest.raises(errors.InvalidMessage, match="not a PEM certificate"):
        kept.keep_client(key, ssl.DER_cert_to_PEM_cert(der))


def test_refuses_a_certificate_without_a_life(kept: AgentState, authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host-1")])
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    )
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    with pytest.raises(errors.InvalidMessage, match="ends before it begins"):
        kept.keep_client(key, pem)
    assert not kept.client_file.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no key with its certificate"),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "holds no key with its certificate",
        ),
    ],
)
def test_refuses_a_broken_client_file(content: bytes, reason: str, kept: AgentState) -> None:
    kept.client_file.write_bytes(content)

    with pytest.raises(errors.InvalidConfig, match=reason):
        kept.check_client()


def change(**changed: object) -> Callable[[dict[str, Any]], object]:
    return lambda members: {**members, **changed}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(lambda _: [], "not a JSON object", id="list"),
        pytest.param(change(version=2), "version", id="other version"),
        pytest.param(change(endorsement="rsa-1024"), "unknown kind of EK", id="unknown EK"),
        pytest.param(change(public="AAAA"), "TPMT_PUBLIC", id="no key"),
        pytest.param(change(public=5), "public", id="number"),
        pytest.param(change(private="!"), "private", id="not base64"),
        pytest.param(change(more=1), "unknown members", id="unknown member"),
    ],
)
def test_refuses_a_broken_ak_file(
    fault: Callable[[dict[str, Any]], object], reason: str, kept: AgentState, directory: Path
) -> None:
    kept.keep_ak(BLOB)
    members = json.loads((directory / AK_FILE).read_bytes())
    (directory / AK_FILE).write_text(json.dumps(fault(members)))

    with pytest.raises(errors.InvalidConfig, match=reason):
        kept.load_ak()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b" " * (1024 * 1024 + 1)])
def test_refuses_a_file_that_is_no_json(content: bytes, kept: AgentState, directory: Path) -> None:
    for name, load in ((AK_FILE, kept.load_ak), (STATUS_FILE, kept.load_status)):
        (directory / name).write_bytes(content)
        with pytest.raises(errors.InvalidConfig, match=name):
            load()


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o755])
def test_refuses_a_directory_that_others_can_read(mode: int, directory: Path) -> None:
    directory.chmod(mode)

    with pytest.raises(errors.InvalidConfig, match=f"mode {mode:04o}, 0700 is needed"):
        AgentState(directory)


def test_refuses_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidConfig, match="No such file or directory"):
        AgentState(tmp_path / "absent")


def test_says_that_a_file_cannot_be_written(kept: AgentState, directory: Path) -> None:
    (directory / STATUS_FILE).mkdir()

    with pytest.raises(errors.Unavailable, match=r"status\.json is unavailable"):
        kept.keep_status({})


WRITER = """
import itertools, sys
from pathlib import Path
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.keys import KeyBlob
from tests.attester.agent_state_test import AREA, CLIENT_FILE
kept = AgentState(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count():
    kept.keep_status({"number": number, "filler": "x" * 200_000})
    kept.keep_ak(KeyBlob("rsa-2048", AREA, b"p" * (number % 900)))
    kept._write(CLIENT_FILE, b"whole" * 2000)
"""


def test_files_survive_kill_9(kept: AgentState, directory: Path) -> None:
    """The writer does nothing but write; whenever it is killed, each file is whole or absent."""
    draw = random.Random(4711)
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(draw.uniform(0, 0.05))  # the moment of the kill; nothing is waited for
        writer.send_signal(signal.SIGKILL)
        writer.communicate()

        status = kept.load_status()
        assert status is None or len(str(status["filler"])) == 200_000
        kept.load_ak()
        if (directory / CLIENT_FILE).exists():
            assert (directory / CLIENT_FILE).read_bytes() == b"whole" * 2000
    kept.keep_status({"level": "trusted"})
    assert kept.load_status() == {"level": "trusted"}
