# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the JSON interfaces of verifier and broker share.

Namely who may call a route, and in which form answers and errors leave. A caller learns the reason
of its own fault, never what the server holds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Union

import tornado.web

from ovirt_tcp_plugin import errors

STATUS = {
    errors.InvalidMessage: 400,
    errors.Refused: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unavailable: 503,
}

# Characters of a path that the log shows: a peer may send thousands.
MAX_SHOWN_PATH = 100

_BEARER = "Bearer "


class JsonHandler(tornado.web.RequestHandler):
    """Answers JSON; an error is `{"code", "reason"}`.

    Attributes:
        callers: who may call the route: members of an enumeration that each role has.
        writers: who may do more than look, where that is not the same.
    """

    server_name = "ovirt-tcp"
    log = logging.getLogger("web")
    callers: frozenset[Any] = frozenset()
    writers: frozenset[Any] = frozenset()

    def set_default_headers(self) -> None:
        self.set_header("Server", self.server_name)
        self.set_header("Cache-Control", "no-store")

    @classmethod
    def callers_of(cls, method: str) -> frozenset[Any]:
        """Return who may call a method of this route."""
        return cls.writers if cls.writers and method != "GET" else cls.callers

    @property
    def bearer(self) -> str:
        """The token that the caller shows, empty for none."""
        authorization = str(self.request.headers.get("Authorization", ""))
        if not authorization.startswith(_BEARER):
            return ""
        return authorization[len(_BEARER) :]

    def answer(self, content: Union[Mapping[str, Any], Sequence[Any]]) -> None:
        """Finish with a JSON object or array."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(content))

    def answer_error(self, status: int, code: str, reason: str) -> None:
        """Finish with an error object."""
        self.set_status(status)
        self.answer({"code": code, "reason": reason})

    def answer_stranger(self) -> None:
        """Finish because the caller is none of those that the route is for."""
        callers = self.callers_of(self.request.method or "")
        names = " or ".join(sorted(caller.value for caller in callers))
        self.answer_error(401, "unauthenticated", f"this needs {names}")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, errors.Refused):
            self.answer_error(STATUS[errors.Refused], error.code, error.reason)
            return
        for kind, status in STATUS.items():
            if isinstance(error, kind):
                self.answer_error(status, kind.__name__, str(error))
                return
        reason = "bad request"
        if status_code >= 500:
            reason = "the server could not do this; its log says why"
        self.answer_error(status_code, "error", reason)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        path = self.request.path[:MAX_SHOWN_PATH]
        peer = self.request.remote_ip
        if isinstance(value, tuple(STATUS)):
            self.log.info("refused path=%a peer=%s reason=%s", path, peer, value)
        elif isinstance(value, tornado.web.HTTPError):
            self.log.info("refused path=%a peer=%s reason=%s", path, peer, value.reason)
        else:
            self.log.error("failed path=%a", path, exc_info=(typ, value, tb))
