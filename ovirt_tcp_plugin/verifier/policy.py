# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The reference values that hosts are judged by, and what changes them."""

from __future__ import annotations

from typing import Optional

from ovirt_tcp_plugin.verifier.store import references
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.references import Policy


class Policies:
    """The reference values, read again from the store when their version has moved on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest: Optional[Policy] = None

    async def at(self, version: int) -> Policy:
        """Return the reference values of this version or a later one.

        Raises:
            Unavailable: the store does not answer.
        """
        if self._newest is None or self._newest.version < version:
            self._newest = await self._database.read(references.load)
        return self._newest
