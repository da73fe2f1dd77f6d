# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who is logged in: passwords for tokens, which end when nobody uses them, at log-out, and when the engine restarts."""

from __future__ import annotations

import secrets
from typing import Optional

from ovirt_tcp_plugin.lab.engine.model import Model, User


class Sessions:
    """The tokens."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        # Token: (user id, when it was used last).
        self._used: dict[str, tuple[str, float]] = {}

    def log_in(self, name: str, password: str) -> Optional[str]:
        """Return a token, None when name or password are wrong or the user has no role at all."""
        users = self._model.users.values()
        user = next((one for one in users if (one.name, one.password) == (name, password)), None)
        if user is None or not self._model.permits(user):
            return None
        token = secrets.token_urlsafe(32)
        self._used[token] = (user.id, self._model.now())
        return token

    def log_out(self, token: str) -> None:
        """End a token."""
        self._used.pop(token, None)

    def user(self, token: str) -> Optional[User]:
        """Return whose token it is, None if it is no good; it lives on from now."""
        now = self._model.now()
        user_id, used = self._used.pop(token, ("", 0.0))
        if not user_id or now - used >= self._model.timings.session_idle:
            return None
        self._used[token] = (user_id, now)
        return self._model.users[user_id]

    def end_all(self) -> None:
        """End all tokens."""
        self._used.clear()
