# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What would begin a line of its own in a log."""

from __future__ import annotations

# Everything that ends a line for some reader of logs, and what moves a terminal's cursor.
SEPARATORS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


SEPARATORS += ["\x1b[2K", "\x1b[1A", "\b", "\0", "\u202e"]


FORGED = "WARNING verifier.web host removed host=host-7"
