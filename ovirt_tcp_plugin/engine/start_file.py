# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The file that the engine's service writes at each start, for whoever runs on the engine's machine."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Optional


def started_at(start_file: Path) -> Optional[datetime.datetime]:
    """Return when the engine's service started last, None where its file is not there or cannot be seen.

    The service writes /var/lib/ovirt-engine/engine.up just before it starts the engine, and removes it when the engine
    ends (`ovirt-engine.py`, `ENGINE_UP_MARK`).
    """
    try:
        modified = start_file.stat().st_mtime
    except OSError:
        return None
    return datetime.datetime.fromtimestamp(modified, datetime.timezone.utc)
