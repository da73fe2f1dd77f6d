# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A VM was moved to another cluster.

Warn if it may run on any host now, or asks in vain for a trusted one.

After the engine's `USER_UPDATE_VM` (35).
If that event gets lost, the comparison of complete listings tells the same.
"""


def handle(event, broker):
    broker.warn(event)
