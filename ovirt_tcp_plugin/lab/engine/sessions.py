# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who is logged in: passwords for tokens.

A token ends when nobody uses it, at log-out, and when the engine restarts.

A password that is right gives a token to anybody; whether he may log in is asked when the token
comes for the first time (`SsoRestApiAuthFilter`, `CreateUserSessionCommand`), and never again: a
session outlives the role that let it in.
"""

from __future__ import annotations

import dataclasses
import secrets
from typing import Optional

from ovirt_tcp_plugin.lab.engine import audit_log
from ovirt_tcp_plugin.lab.engine.model import EngineUser, Model

# Of aaa-jdbc (MAX_FAILURES_SINCE_SUCCESS): the account is locked then, for
# `timings.locked_account`.
MAX_FAILURES = 5


class Unauthorized(Exception):
    """No session: why."""


@dataclasses.dataclass
class _Session:
    user: str
    used: float
    open: bool = False


class Sessions:
    """The tokens."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self._sessions: dict[str, _Session] = {}
        self._failures: dict[str, int] = {}
        self._locked_until: dict[str, float] = {}

    def log_in(self, name: str, password: str) -> Optional[str]:
        """Return a token, None when name or password are wrong.

        After too many wrong passwords none is right for a while.
        """
        now = self._model.now()
        user = self._find(name)
        if user is None or now < self._locked_until.get(name, now):
            return None
        if user.password != password:
            self._count_failure(name, now)
            return None
        self._failures[name] = 0
        token = secrets.token_urlsafe(32)
        self._sessions[token] = _Session(user.id, now)
        return token

    def _find(self, name: str) -> Optional[EngineUser]:
        for user in self._model.users.values():
            if user.name == name:
                return user
        return None

    def _count_failure(self, name: str, now: float) -> None:
        self._failures[name] = self._failures.get(name, 0) + 1
        if self._failures[name] >= MAX_FAILURES:
            self._failures[name] = 0
            self._locked_until[name] = now + self._model.timings.locked_account

    def log_out(self, token: str) -> None:
        """End a token."""
        session = self._sessions.pop(token, None)
        if session is not None and session.open:
            text = "connected from '127.0.0.1' using session 'S' logged out."
            self._log(audit_log.LOGGED_OUT, session, text)

    def user(self, token: str) -> EngineUser:
        """Return whose token it is; it lives on from now. Raises Unauthorized."""
        now = self._model.now()
        session = self._sessions.get(token)
        if session is None or now - session.used >= self._model.timings.session_idle:
            self._sessions.pop(token, None)
            raise Unauthorized("The access token is expired or invalid.")
        user = self._model.users[session.user]
        if not session.open:
            self._open(session, user)
        session.used = now
        return user

    def _open(self, session: _Session, user: EngineUser) -> None:
        if "login" not in self._model.permits(user):
            profile = user.name.partition("@")[2]
            name = f"{user.qualified_name} with profile [{profile}]"
            raise Unauthorized(f"The user {name} is not authorized to perform login")
        session.open = True
        text = "connecting from '127.0.0.1' using session 'S' logged in."
        self._log(audit_log.LOGGED_IN, session, text)

    def end_all(self) -> None:
        """End all tokens."""
        self._sessions.clear()

    def _log(self, code: int, session: _Session, what: str) -> None:
        acting = audit_log.ACTING.set((session.user, secrets.token_hex(4)))
        try:
            self._model.log(code, f"User {self._model.acting_name()} {what}")
        finally:
            audit_log.ACTING.reset(acting)
