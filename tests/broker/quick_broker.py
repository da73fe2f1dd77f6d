# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-broker` whose pauses after failures are short, so that a campaign sees it heal many
times.

Only what is meant to spare servers and hosts in the long run is shortened; nothing that says what
counts as trusted.
"""

from __future__ import annotations

from ovirt_tcp_plugin.broker.main import main
from ovirt_tcp_plugin.broker.state import quarantine, verdicts
from ovirt_tcp_plugin.broker.verifiers import failover

verdicts.FIRST_RETRY_MS, verdicts.LONGEST_RETRY_MS = 300, 1_500
failover.FIRST_REST_MS, failover.LONGEST_REST_MS = 200, 1_000
quarantine.FIRST_RETRY_MS, quarantine.LONGEST_RETRY_MS = 300, 2_000
quarantine.NEXT_RETURN_MS, quarantine.LONGEST_RETURN_MS, quarantine.STUCK_MS = 200, 2_000, 5_000

if __name__ == "__main__":
    main()
