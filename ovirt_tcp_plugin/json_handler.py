# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the JSON interfaces of verifier and broker share: how an answer and an error leave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Union

import tornado.web


class JsonHandler(tornado.web.RequestHandler):
    """Answers JSON; an error is `{"code", "reason"}`."""

    server_name = "ovirt-tcp"

    def set_default_headers(self) -> None:
        self.set_header("Server", self.server_name)
        self.set_header("Cache-Control", "no-store")

    def answer(self, content: Union[Mapping[str, Any], Sequence[Any]]) -> None:
        """Finish with a JSON object or array."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(content))

    def answer_error(self, status: int, code: str, reason: str) -> None:
        """Finish with an error object."""
        self.set_status(status)
        self.answer({"code": code, "reason": reason})
