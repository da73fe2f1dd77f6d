# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The verifier without the pause between two challenges of one host, which is there to slow down a
single one."""

from __future__ import annotations

from ovirt_tcp_plugin.verifier import long_poll
from ovirt_tcp_plugin.verifier.main import main

if __name__ == "__main__":
    long_poll.MIN_CHALLENGE_INTERVAL_MS = 0
    main()
