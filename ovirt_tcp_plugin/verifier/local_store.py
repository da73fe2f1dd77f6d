# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The server's options on this machine, and the database that they name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ovirt_tcp_plugin import config
from ovirt_tcp_plugin.verifier import signing
from ovirt_tcp_plugin.verifier.authority import KEY_FILE, Authority, check_private
from ovirt_tcp_plugin.verifier.settings import VerifierSettings
from ovirt_tcp_plugin.verifier.store import authorities
from ovirt_tcp_plugin.verifier.store.database import Database


def load_settings(config_dir: Path) -> VerifierSettings:
    """Return the server's options. Raises InvalidConfig."""
    return config.load(VerifierSettings, "verifier", config_dir)


@contextlib.contextmanager
def opened(settings: VerifierSettings) -> Iterator[Database]:
    """Give the database of these options. Raises InvalidConfig."""
    database = Database(settings.store.database)
    try:
        yield database
    finally:
        database.close()


@contextlib.contextmanager
def opened_by(config_dir: Path) -> Iterator[Database]:
    """Give the database of the options in a directory. Raises InvalidConfig."""
    with opened(load_settings(config_dir)) as database:
        yield database


def prepare(settings: VerifierSettings, ca: Authority) -> None:
    """Do what only the first server on a database has to do, before there are several."""
    with opened(settings) as database:
        claim(database, ca)
        signing.ensure_key(database, ca)


def claim(database: Database, ca: Authority) -> None:
    """Bind a database to an authority: all servers on it have the same. Raises InvalidConfig."""
    digests = ca.digests()
    database.transact(lambda connection: authorities.claim(connection, digests))


def check_modes(settings: VerifierSettings) -> None:
    """Return if nobody else may use the server's secrets. Raises InvalidConfig."""
    directory = settings.store.directory
    check_private(directory, 0o077)
    check_private(directory / KEY_FILE, 0o077)
    # A group may share it with a proxy.
    check_private(settings.server.key, 0o037)
