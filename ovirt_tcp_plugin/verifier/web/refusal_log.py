# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What others make the server write into its log: bounded in length and in number.

Otherwise a stranger could have it write a hundred times what a day's journal holds, and the entries
that matter would be gone.
"""

from __future__ import annotations

import logging
import time
from typing import Callable

from ovirt_tcp_plugin.verifier.web.limits import Rates

# Lines that one peer may cause each second, and all strangers together. With lines of at most 400
# characters the latter are 35 MB a day.
LINES_OF_PEER = 0.5
LINES_OF_STRANGERS = 1.0
# Characters of what a peer sent that are shown.
MAX_SHOWN = 100
# Characters of a line of the HTTP library, which quotes headers as a whole.
MAX_LINE = 300
_STRANGERS = "strangers"


class RefusalLog:
    """Decides which refusals are written; how many were left out is told by the next line.

    Args:
        now_ms: a clock that only goes forward.
    """

    def __init__(
        self, now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000
    ) -> None:
        self._now_ms = now_ms
        self._of_peer = Rates(LINES_OF_PEER)
        self._of_strangers = Rates(LINES_OF_STRANGERS)
        self._left_out = 0

    def admits(self, peer: str, known: bool) -> bool:
        """Count a line that a peer causes; return whether it is to be written.

        Args:
            known: whether it showed who it is. Strangers share a limit, too.
        """
        now_ms = self._now_ms()
        admitted = self._of_peer.wait_s(peer, now_ms) is None
        if admitted and not known:
            admitted = self._of_strangers.wait_s(_STRANGERS, now_ms) is None
        if not admitted:
            self._left_out += 1
        return admitted

    def left_out(self) -> int:
        """Return how many lines were left out since the last call."""
        count = self._left_out
        self._left_out = 0
        return count


class LibraryLog(logging.Filter):
    """The same for what the HTTP library writes: malformed requests, broken TLS.

    Errors are its own and always written.
    """

    def __init__(self, refusals: RefusalLog) -> None:
        super().__init__()
        self._refusals = refusals

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written; a long one is cut."""
        if record.levelno >= logging.ERROR:
            return True
        if not self._refusals.admits(_STRANGERS, known=False):
            return False
        text = f"{record.getMessage()[:MAX_LINE]}{suffix(self._refusals.left_out())}"
        record.msg = text
        record.args = ()
        return True


def shown(untrusted: str) -> str:
    """Return the beginning of what a peer sent, as a line of the log may show it."""
    return ascii(untrusted)[: MAX_SHOWN + 2]


def suffix(left_out: int) -> str:
    """Return the end of a line before which others were left out."""
    return f" left_out={left_out}" if left_out else ""
