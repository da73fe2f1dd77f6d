# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's threads: they bring news to the state, and carry out and write what it plans."""
