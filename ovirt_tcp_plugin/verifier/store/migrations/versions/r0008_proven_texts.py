# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Texts that a boot loader measured: with the steps of a boot, and with reference values.

They stand in the JSON of columns that exist. The revision keeps servers of before away, which would
take such rows for corrupt.
"""

from __future__ import annotations

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Change nothing: rows of before have no texts, and are read as they are."""
