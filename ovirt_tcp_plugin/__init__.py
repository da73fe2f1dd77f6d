# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Trusted Compute Pools for oVirt, out of tree. The chain of roles is drawn in README.md."""

__version__ = "0.1.0"
