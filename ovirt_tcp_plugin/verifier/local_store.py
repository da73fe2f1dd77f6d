# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The server's options on this machine, and the database that they name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from ovirt_tcp_plugin import config
from ovirt_tcp_plugin.verifier import signing
from ovirt_tcp_plugin.verifier.authority import Authority
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
    digest = ca.certificate.fingerprint(hashes.SHA256()).hex()
    database.transact(lambda connection: authorities.claim(connection, digest))
