# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The commands of `ovirt-tcp`, a module a topic; `cli` puts them together."""
