# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who is logged in: passwords for tokens, which end when nobody uses them, at log-out, and when the engine restarts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Optional

from ovirt_tcp_plugin.lab.engine.clock import Clock


class Sessions:
    """The tokens."""

    def __init__(self, users: Mapping[str, str], idle_s: float, clock: Clock) -> None:
        self._users, self._idle, self._clock = users, idle_s, clock
        self._used: dict[str, float] = {}

    def log_in(self, user: str, password: str) -> Optional[str]:
        """Return a token, None when user or password are wrong."""
        if self._users.get(user) != password:
            return None
        token = secrets.token_urlsafe(32)
        self._used[token] = self._clock.now()
        return token

    def log_out(self, token: str) -> None:
        """End a token."""
        self._used.pop(token, None)

    def takes(self, token: str) -> bool:
        """Return whether a token is good; it lives on from now."""
        now = self._clock.now()
        if now - self._used.get(token, now - self._idle) >= self._idle:
            self._used.pop(token, None)
            return False
        self._used[token] = now
        return True

    def end_all(self) -> None:
        """End all tokens."""
        self._used.clear()
