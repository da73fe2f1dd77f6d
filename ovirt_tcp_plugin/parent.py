# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A child process that does not outlive its parent."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec only what is there already may be used.
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Have the kernel kill the calling process when its parent dies (prctl(2)).

    Runs in the child, after fork. "Parent" is the thread that forked: start processes from a thread
    that stays.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
