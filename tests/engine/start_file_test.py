# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's start file tells when it started, or nothing."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from ovirt_tcp_plugin.engine.start_file import started_at

MOMENT = datetime.datetime(2026, 11, 30, 12, 0, tzinfo=datetime.timezone.utc)


def test_a_file_that_is_missing_tells_nothing(tmp_path: Path) -> None:
    assert started_at(tmp_path / "no" / "engine.up") is None


def test_its_time_is_that_of_the_start(tmp_path: Path) -> None:
    file = tmp_path / "engine.up"
    file.touch()
    os.utime(file, (MOMENT.timestamp(), MOMENT.timestamp()))
    assert started_at(file) == MOMENT
