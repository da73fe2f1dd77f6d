# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A VM was created, or came by a way that no event told of.

Warn if it asks in vain for a trusted host.

After the engine's `USER_ADD_VM` (34).
If that event gets lost, the comparison of complete listings tells the same.
"""


def handle(event, broker):
    broker.warn(event)
