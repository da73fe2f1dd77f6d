# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A site with a simulated engine and a broker that is not started yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.state import charge
from tests.broker.odd_server import server  # noqa: F401 - a fixture
from tests.broker.site import Site


@pytest.fixture(autouse=True)
def quick_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is alone does not wait for another's answer for long."""
    monkeypatch.setattr(charge, "ANSWER_MS", 300)


@pytest.fixture
def site(tmp_path: Path, site_pki: Path) -> Iterator[Site]:
    made = Site(tmp_path, site_pki, 5)
    try:
        yield made
        made.stop()
    finally:
        made.engine.stop()
