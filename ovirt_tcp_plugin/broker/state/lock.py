# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The kind of lock that parts of the broker's state are given; `broker_state` makes the lock."""

from __future__ import annotations

import contextlib

# Reentrant: parts call each other while they hold it.
Lock = contextlib.AbstractContextManager[object]
