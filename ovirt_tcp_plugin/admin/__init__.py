# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The administrator's command `ovirt-tcp`.

It prepares an engine, examines an installation, and asks the services.
"""
