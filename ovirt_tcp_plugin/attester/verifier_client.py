# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain step 2: the agent's HTTPS requests to its attestation servers.

Outbound only; nothing on a host listens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ovirt_tcp_plugin import errors, https
from ovirt_tcp_plugin.messages import json_fields

CONNECT_WITHIN_S = 10.0
# For an answer that is not waited for on purpose; the appraisal itself takes milliseconds.
ANSWER_WITHIN_S = 30.0
# Results with hundreds of findings stay far below it.
MAX_ANSWER_SIZE = 1024 * 1024
# Ten thousand hosts that connect again once an hour are three handshakes a second for the server.
CONNECTION_AGE_S = 3600.0


class VerifierClient:
    """The attestation servers, of which one is asked until it fails.

    Args:
        urls: in the order of preference.
        ca_file: authority of their certificates, PEM.
        client_file: our key and certificate, PEM; None before the enrolment.
    """

    def __init__(self, urls: Sequence[str], ca_file: Path, client_file: Optional[Path]) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._ca_file = ca_file
        self._current = 0
        self._session = https.Session(client_file, CONNECTION_AGE_S)

    @property
    def current(self) -> str:
        """The URL that is asked now."""
        return self._urls[self._current]

    def post(self, path: str, message: Mapping[str, Any], wait_s: float = 0.0) -> Optional[object]:
        """Return the JSON value that the server answers, None for 204.

        Args:
            wait_s: how long the server may let us wait on purpose.

        Raises:
            Refused: the server understood and refused (4xx); code and reason are the server's.
            Unavailable: it did not answer in time, failed (5xx), or its certificate is not good.
            InvalidMessage: the answer is not of our protocol.
        """
        within_s = CONNECT_WITHIN_S + ANSWER_WITHIN_S + wait_s
        bounds = https.Bounds(CONNECT_WITHIN_S, within_s, MAX_ANSWER_SIZE)
        peer = f"attestation server {self.current}"
        url = self.current + path
        # Not asked twice by itself: a challenge, a token and a proof count once.
        request = https.json_request(peer, "POST", url, message, {}, self._ca_file)
        reply = self._session.exchange(request, bounds)
        if reply.status == 204:
            return None
        return _decode(peer, reply)

    def trust(self, ca_file: Path) -> None:
        """Believe the authorities in this file from the next connection on."""
        self._ca_file = ca_file
        self.reconnect()

    def reconnect(self) -> None:
        """Connect again for the next request, with the client certificate as it is on disk now."""
        self._session.close()

    def interrupt(self) -> None:
        """End the wait for an answer, and every later one, with Unavailable, until `resume`.

        For signal handlers.
        """
        self._session.interrupt()

    def resume(self) -> None:
        """Let answers be waited for again."""
        self._session.resume()

    def fail_over(self) -> bool:
        """Turn to the next server.

        Return whether that is the first one again, so that all have failed.
        """
        self._current = (self._current + 1) % len(self._urls)
        return self._current == 0

    def close(self) -> None:
        """End the connections."""
        self._session.close()


def _decode(peer: str, reply: https.Reply) -> object:
    """Return the JSON value of a reply. Raises as `VerifierClient.post` does."""
    status = reply.status
    if status == 200:
        return json_fields.parse(reply.body, "answer", MAX_ANSWER_SIZE)
    if status >= 500:
        raise errors.Unavailable(peer, f"it answered with status {status}")
    if not 400 <= status < 500:
        raise errors.InvalidMessage("answer", f"unexpected status {status}")
    members = json_fields.parse_members(reply.body, "error answer", MAX_ANSWER_SIZE)
    code = json_fields.text(members, "code", 64)
    reason = json_fields.text(members, "reason", 2000)
    # The server words its reason as the whole sentence of the error that is raised here again.
    raise errors.Refused(code, reason.removeprefix(f"refused ({code}): "))
