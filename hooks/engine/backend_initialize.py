# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine or the broker has started: attest all Up hosts of the trusted pools, stage by stage.

After `Backend.initialize` of the 2013 feature; unlike there, no host changes its state by this.
"""


def handle(event, broker):
    broker.attest_in_stages()
