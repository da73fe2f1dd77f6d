# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One certificate authority, what servers on this machine show under it, and their secrets.

Made once for all tests of a process.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from ovirt_tcp_plugin.verifier.authority import Authority, write_key

PASSWORD = "of the engine"
TOKEN = "of the broker"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    now = datetime.datetime.now(datetime.timezone.utc)
    return Authority.create(tmp_path_factory.mktemp("authority"), now)


@pytest.fixture(scope="session")
def site_pki(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Path:
    """Return a directory with ca.pem, and with certificate, key and secret of two peers.

    The engine's are engine.pem, engine.key and password, the attestation server's server.pem,
    server.key and token.
    """
    directory = tmp_path_factory.mktemp("pki")
    (directory / "ca.pem").write_bytes(authority.pem)
    now = datetime.datetime.now(datetime.timezone.utc)
    for peer in ("engine", "server"):
        certificate, key = authority.issue_server(["127.0.0.1", "localhost"], now)
        (directory / f"{peer}.pem").write_bytes(certificate)
        write_key(directory / f"{peer}.key", key)
    (directory / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
    (directory / "token").write_text(f"{TOKEN}\n", encoding="ascii")
    for secret in ("password", "token"):
        (directory / secret).chmod(0o600)
    return directory
