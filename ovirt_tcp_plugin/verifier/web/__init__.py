# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The verifier's HTTPS interface.

Each route declares who may call it; nothing is open by omission.
"""
