# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A site with a simulated engine and a broker that is not started yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.odd_server import server  # noqa: F401 - a fixture
from tests.broker.site import Site


@pytest.fixture
def site(tmp_path: Path, site_pki: Path) -> Iterator[Site]:
    made = Site(tmp_path, site_pki, 5)
    try:
        yield made
        made.stop()
    finally:
        made.engine.stop()
