# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker knows, and what follows from it. Pure: no thread, no clock and no peer."""
