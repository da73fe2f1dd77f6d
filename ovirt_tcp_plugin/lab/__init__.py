# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Everything without hardware: an engine simulator and hosts with software TPMs."""
