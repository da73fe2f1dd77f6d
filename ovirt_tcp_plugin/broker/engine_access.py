# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How the broker's user reaches the engine: for the broker, and for whoever looks at it by its
options."""

from __future__ import annotations

from ovirt_tcp_plugin import secret_files
from ovirt_tcp_plugin.broker.settings import EngineOptions
from ovirt_tcp_plugin.engine.sdk import Access, password_of


def engine_access(options: EngineOptions) -> Access:
    """Return the access of the broker's user; its password is read from its file at each log-in."""
    password_file = options.password_file
    secret_files.warn_if_open(password_file)
    return Access(
        options.url,
        options.username,
        lambda: password_of(password_file),
        options.ca_file,
        options.timeout_s,
        password_file,
    )
