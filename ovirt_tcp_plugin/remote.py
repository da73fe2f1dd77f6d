# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Calls the JSON interfaces of verifier and broker for the administrator's command."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ovirt_tcp_plugin import errors, https
from ovirt_tcp_plugin.messages import json_fields

CONNECT_WITHIN_S = 5.0
# For the whole exchange: an import of reference values waits up to 15 s for the golden host.
ANSWER_WITHIN_S = 30.0
MAX_ANSWER_SIZE = 64 * 1024 * 1024
# Stands in a path as it is; whatever else a name has is quoted.
_SAFE_IN_PATH = "/%!$&'()*+,:;=@"


class Remote:
    """One JSON interface.

    Args:
        peer: its name in errors.
        url: its root, without a trailing slash.
        token_file: file with the bearer token.
        ca_file: authority of its certificate; None for plain HTTP on loopback.
    """

    def __init__(
        self, peer: str, url: str, token_file: Path, ca_file: Optional[Path] = None
    ) -> None:
        self._peer = peer
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._ca_file = ca_file

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
            Unavailable: no whole answer in time, or one that cannot be parsed.
            Refused: the peer said no; code and reason are its own.
        """
        peer = f"the {self._peer} at {self._url}"
        url = self._url + urllib.parse.quote(path, safe=_SAFE_IN_PATH)
        if query:
            url = f"{url}?{urllib.parse.urlencode(query)}"
        headers = {"Authorization": f"Bearer {self._token()}"}
        request = https.json_request(peer, method, url, message, headers, self._ca_file)
        bounds = https.Bounds(CONNECT_WITHIN_S, ANSWER_WITHIN_S, MAX_ANSWER_SIZE)
        reply = https.exchange(request, bounds)
        return _decode(peer, reply)

    def _token(self) -> str:
        try:
            return self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as e:
            fault = f"the token cannot be read: {e}"
            raise errors.InvalidConfig(str(self._token_file), [fault]) from e


def _decode(peer: str, reply: https.Reply) -> Mapping[str, Any]:
    """Return the JSON object of a reply. Raises Unavailable, Refused as `Remote.call` does."""
    try:
        members = json_fields.parse_members(reply.body, "answer", MAX_ANSWER_SIZE)
    except errors.InvalidMessage as e:
        raise errors.Unavailable(peer, f"status {reply.status} and {e}") from e
    if reply.status != 200:
        code = str(members.get("code", reply.status))
        reason = str(members.get("reason", "no reason given"))
        raise errors.Refused(code, reason)
    return members
