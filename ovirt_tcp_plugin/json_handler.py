# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the JSON interfaces of verifier and broker share: who may call a route, and how answers and errors leave.

A caller learns the reason of its own fault, never what the server holds.
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


class JsonHandler(tornado.web.RequestHandler):
    """Answers JSON; an error is `{"code", "reason"}`. Callers are members of an enumeration of each role's own."""

    server_name = "ovirt-tcp"
    log = logging.getLogger("web")
    callers: frozenset[Any] = frozenset()
    # Who may do more than look, where that is not the same.
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
        given = str(self.request.headers.get("Authorization", ""))
        return given[len("Bearer ") :] if given.startswith("Bearer ") else ""

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
        wanted = " or ".join(sorted(caller.value for caller in self.callers_of(self.request.method or "")))
        self.answer_error(401, "unauthenticated", f"this needs {wanted}")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        for kind, status in STATUS.items():
            if isinstance(error, kind):
                if isinstance(error, errors.Refused):
                    self.answer_error(status, error.code, error.reason)
                else:
                    self.answer_error(status, kind.__name__, str(error))
                return
        reason = "the server could not do this; its log says why" if status_code >= 500 else "bad request"
        self.answer_error(status_code, "error", reason)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, tuple(STATUS)):
            self.log.info("refused path=%a peer=%s reason=%s", self.request.path, self.request.remote_ip, value)
        elif isinstance(value, tornado.web.HTTPError):
            self.log.info("refused path=%a peer=%s reason=%s", self.request.path, self.request.remote_ip, value.reason)
        else:
            self.log.error("failed path=%a", self.request.path, exc_info=(typ, value, tb))
