# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Where a VM may run, and what carries that rule between the roles. Pure.

The roles are broker, filterd and the administrator's command.
"""
