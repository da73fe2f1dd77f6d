# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A VM was imported, or one that was gone is back: warn if it lost the trust that it needed.

After the engine's `IMPORTEXPORT_IMPORT_VM` (1152) and
`VM_IMPORT_FROM_CONFIGURATION_EXECUTED_SUCCESSFULLY` (174). If that event gets lost, the comparison
of complete listings tells the same.
"""


def handle(event, broker):
    broker.warn(event)
