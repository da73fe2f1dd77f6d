# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One certificate authority, and certificate and password of a simulated engine under it.

Made once for all tests of a process.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from ovirt_tcp_plugin.verifier.authority import Authority, write_key

PASSWORD = "of the engine"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    now = datetime.datetime.now(datetime.timezone.utc)
    return Authority.create(tmp_path_factory.mktemp("authority"), now)


@pytest.fixture(scope="session")
def site_pki(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate, key = authority.issue_server(["127.0.0.1"], now)
    (directory / "ca.pem").write_bytes(authority.pem)
    (directory / "engine.pem").write_bytes(certificate)
    write_key(directory / "engine.key", key)
    (directory / "password").write_text(PASSWORD, encoding="utf-8")
    return directory
