# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Certificate and password of a simulated engine, once for all tests of a process."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from ovirt_tcp_plugin.verifier.authority import Authority, write_key

PASSWORD = "of the engine"


@pytest.fixture(scope="session")
def site_pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate, key = Authority.create(directory, now).issue_server(["127.0.0.1"], now)
    (directory / "engine.pem").write_bytes(certificate)
    write_key(directory / "engine.key", key)
    (directory / "password").write_text(PASSWORD, encoding="utf-8")
    return directory
