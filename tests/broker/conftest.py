# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A site with a simulated engine and a broker that is not started yet."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.verifier.authority import Authority, write_key
from tests.broker.odd_server import pki, server  # noqa: F401 - fixtures
from tests.broker.site import PASSWORD, Site


@pytest.fixture(scope="session")
def site_pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate, key = Authority.create(directory, now).issue_server(["127.0.0.1"], now)
    (directory / "engine.pem").write_bytes(certificate)
    write_key(directory / "engine.key", key)
    (directory / "password").write_text(PASSWORD, encoding="utf-8")
    return directory


@pytest.fixture
def site(tmp_path: Path, site_pki: Path) -> Iterator[Site]:
    made = Site(tmp_path, site_pki, 5)
    try:
        yield made
        made.stop()
    finally:
        made.engine.stop()
