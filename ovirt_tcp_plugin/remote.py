# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Calls the JSON interfaces of verifier and broker for the administrator's command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import requests

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields as fields

CONNECT_WITHIN_S = 5
# An import of reference values waits up to 15 s for the golden host.
ANSWER_WITHIN_S = 30
MAX_ANSWER_SIZE = 64 * 1024 * 1024


class Remote:
    """One JSON interface.

    Args:
        peer: its name in errors.
        url: its root, without a trailing slash.
        token_file: file with the bearer token.
        ca_file: authority of its certificate; None for plain HTTP on loopback.
    """

    def __init__(self, peer: str, url: str, token_file: Path, ca_file: Optional[Path] = None) -> None:
        self._peer = peer
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._verify: Union[bool, str] = str(ca_file) if ca_file else True

    def call(
        self,
        method: str,
        path: str,
        message: Optional[Mapping[str, Any]] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> Mapping[str, Any]:
        """Return the JSON object that the peer answers.

        Raises:
            InvalidConfig: the token file cannot be read.
            Unavailable: no answer, or none that could be understood.
            Refused: the peer said no; code and reason are its own.
        """
        headers = {"Authorization": f"Bearer {self._token()}"}
        timeouts = (CONNECT_WITHIN_S, ANSWER_WITHIN_S)
        try:
            with requests.request(
                method,
                self._url + path,
                json=message,
                params=query,
                headers=headers,
                timeout=timeouts,
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = answer.raw.read(MAX_ANSWER_SIZE + 1, decode_content=True)
                status = answer.status_code
        except (requests.RequestException, OSError) as e:
            raise errors.Unavailable(f"the {self._peer} at {self._url}", _cause(e)) from e
        try:
            members = fields.members(fields.parse(content, "answer", MAX_ANSWER_SIZE), "answer")
        except errors.InvalidMessage as e:
            raise errors.Unavailable(f"the {self._peer} at {self._url}", f"status {status} and {e}") from e
        if status != 200:
            raise errors.Refused(str(members.get("code", status)), str(members.get("reason", "no reason given")))
        return members

    def _token(self) -> str:
        try:
            return self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise errors.InvalidConfig(str(self._token_file), [f"the token cannot be read: {e}"]) from e


def _cause(error: BaseException) -> str:
    """Return the innermost reason: the outer ones only name the library's layers."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return str(error) or type(error).__name__
        error = inner
