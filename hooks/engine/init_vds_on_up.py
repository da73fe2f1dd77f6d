# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A host came Up, was added, moved or rebooted: attest it before it counts.

After `InitVdsOnUpCommand` of the 2013 feature; unlike there, the host gets no VM before its
verdict.
"""


def handle(event, broker):
    broker.attest_host(event.host_id)
