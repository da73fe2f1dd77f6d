# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The authority: what it issues ends with it, and its successor is believed by everybody."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.public_keys import life
from ovirt_tcp_plugin.verifier import signing
from ovirt_tcp_plugin.verifier.authority import AGENT_LIFETIME, Authority, write_key
from ovirt_tcp_plugin.verifier.store import verdict_keys
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.web import server as web
from tests.verifier.administrator import Run
from tests.verifier.enrolled import certificate_request

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Return whether the two believe each other, in memory."""
    pipes = [ssl.MemoryBIO() for _ in range(4)]
    at_server = server.wrap_bio(pipes[0], pipes[1], server_side=True)
    at_client = client.wrap_bio(pipes[2], pipes[3], server_hostname="127.0.0.1")
    for _ in range(6):
        for end in (at_client, at_server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
            pipes[0].write(pipes[3].read())
            pipes[2].write(pipes[1].read())
    return True


def serving(directory: Path, ca: Authority) -> ssl.SSLContext:
    certificate, key = ca.issue_server(["127.0.0.1"], NOW)
    (directory / "server.pem").write_bytes(certificate)
    write_key(directory / "server.key", key)
    return web.tls_context(directory / "server.pem", directory / "server.key", ca.pem)


def client_of(directory: Path, ca: Authority, believed: bytes) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = ca.issue_agent("host-1", certificate_request(key), NOW)
    (directory / "client.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_key(directory / "client.key", key)
    context = ssl.create_default_context(cadata=believed.decode("ascii"))
    # As Python 3.13 has it by default.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(directory / "client.pem", directory / "client.key")
    return context


@pytest.mark.parametrize("days", [4, 3649])
def test_nothing_is_good_longer_than_its_issuer(tmp_path: Path, days: int) -> None:
    ca = Authority.create(tmp_path, NOW)
    later = ca.end - days * DAY
    key = ec.generate_private_key(ec.SECP256R1())
    agent = ca.issue_agent("host-1", certificate_request(key), later)
    server = x509.load_pem_x509_certificate(ca.issue_server(["a"], later)[0])
    assert life(agent)[1] == min(ca.end, (later + AGENT_LIFETIME).replace(microsecond=0))
    assert life(server)[1] <= ca.end


def test_an_authority_that_ended_issues_nothing(tmp_path: Path) -> None:
    ca = Authority.create(tmp_path, NOW - 3651 * DAY)
    with pytest.raises(errors.Unavailable, match="authority replace"):
        ca.issue_server(["a"], NOW)


@pytest.mark.parametrize("times", [1, 2])
def test_a_renewed_authority_is_believed_by_everybody(tmp_path: Path, times: int) -> None:
    old = Authority.create(tmp_path, NOW)
    new = old
    for _ in range(times):
        new = new.renewed(NOW)
    server = serving(tmp_path, new)
    for issuer, believed in ((old, old.pem), (old, new.pem), (new, old.pem), (new, new.pem)):
        assert handshake(server, client_of(tmp_path, issuer, believed))
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    other = Authority.create(stranger, NOW)
    assert not handshake(server, client_of(tmp_path, new, other.pem))
    assert not handshake(server, client_of(tmp_path, other, new.pem))


def test_a_crash_between_the_two_files_leaves_the_former_authority(tmp_path: Path) -> None:
    old = Authority.create(tmp_path, NOW)
    before = (tmp_path / "ca.pem").read_bytes()
    old.renewed(NOW).write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(before)
    loaded = Authority.load(tmp_path)
    assert loaded.certificate == old.certificate
    assert loaded.derive(b"x") == old.derive(b"x")


def test_verdict_keys_are_read_through_two_renewals(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'v.db'}")
    ca = Authority.create(tmp_path, NOW)
    signing.ensure_key(database, ca)
    first = database.transact(verdict_keys.active)
    for _ in range(2):
        ca = ca.renewed(NOW)
        signing.ensure_key(database, ca)
    kept = database.transact(verdict_keys.active)
    assert first is not None
    assert kept is not None
    assert kept.key_id == first.key_id
    signing._private_key(kept, Authority(ca.certificate, ca._key))
    database.close()


@pytest.mark.parametrize("name", ["ca.key", "server.key"])
def test_keys_that_others_can_read_stop_the_server_at_every_start(
    run: Run, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "state" / name
    path.chmod(0o644)
    refused = run("run")
    assert refused.exit_code == 1
    assert f"chmod 600 {path}" in refused.output


def test_a_state_directory_that_others_can_read_stops_the_server(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state").chmod(0o755)
    refused = run("run")
    assert refused.exit_code == 1
    assert f"chmod 700 {tmp_path / 'state'}" in refused.output


def test_init_does_not_ignore_another_name(run: Run) -> None:
    refused = run("init", "--name", "other.example.com")
    assert refused.exit_code == 1
    assert "authority certify --name other.example.com" in refused.output
    assert run("init", "--name", "verifier.example.com").exit_code == 0
    assert run("authority", "certify", "--name", "other.example.com").exit_code == 0
    assert run("init", "--name", "other.example.com").exit_code == 0


def test_an_authority_is_renewed_by_a_command(run: Run, tmp_path: Path) -> None:
    before = (tmp_path / "state" / "ca.pem").read_bytes()
    for _ in range(2):
        renewed = run("authority", "renew")
        assert renewed.exit_code == 0, renewed.output
        assert "systemctl reload" in renewed.output
    pem = (tmp_path / "state" / "ca.pem").read_bytes()
    assert before in pem
    chain = (tmp_path / "state" / "server.pem").read_bytes()
    assert chain.count(b"BEGIN CERTIFICATE") == 3
    assert len(run("authority", "show").output.splitlines()) == 4
    assert run("init").exit_code == 0


def test_a_lost_key_is_replaced_by_a_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state" / "ca.key").unlink()
    lost = run("run")
    assert lost.exit_code == 1
    assert "ca.key cannot be read" in lost.output
    assert "authority replace" in lost.output
    replaced = run("authority", "replace", "--yes")
    assert replaced.exit_code == 0, replaced.output
    assert run("init").exit_code == 0
    assert run("verdict-key", "list").output.count("active") == 1
