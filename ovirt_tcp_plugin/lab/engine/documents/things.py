# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Things of which this engine has only one, under ids of its own."""

from __future__ import annotations

import uuid

SPACE = uuid.UUID("5d3e5a0e-0f5c-4b57-9d0e-0d6f3e0b7a11")


def _id_of_thing(number: int) -> str:
    return str(uuid.uuid5(SPACE, str(number)))


DATA_CENTER = _id_of_thing(0)
MAC_POOL = _id_of_thing(1)
MANAGEMENT_NETWORK = _id_of_thing(2)
CPU_PROFILE = _id_of_thing(3)
QUOTA = _id_of_thing(4)
MIGRATION_POLICY = _id_of_thing(5)
INSTANCE = _id_of_thing(6)
LARGE_ICON = _id_of_thing(7)
SMALL_ICON = _id_of_thing(8)
