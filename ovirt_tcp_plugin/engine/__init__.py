# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Everything that knows oVirt. It imports no role; whoever talks to an engine imports it."""
