# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A VM came from a cluster that the engine calls trusted: warn if it may run on any host now.

After the engine's own warnings with odd numbers from 10001 to 10011. The way back, the even ones,
needs no warning.
"""


def handle(event, broker):
    broker.warn(event)
