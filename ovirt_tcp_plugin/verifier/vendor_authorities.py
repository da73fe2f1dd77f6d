# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The authorities of TPM vendors, as an administrator or a package put them onto the machine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier import endorsement
from ovirt_tcp_plugin.verifier.settings import KEYLIME_STORE

log = logging.getLogger("verifier.vendor_authorities")

MAX_FILE_SIZE = 1024 * 1024
SUFFIXES = (".pem", ".crt", ".cer")


def read(paths: Iterable[Path]) -> list[crypto.X509]:
    """Return the certificates in these directories and files.

    A path that does not exist is passed over. A bad file of another package's store is left out and
    logged, since nobody here can mend it.

    Raises:
        InvalidConfig: a file cannot be read; trust that is only half loaded would refuse good
            hosts.
    """
    vendors: list[crypto.X509] = []
    faults: list[str] = []
    for path in paths:
        for file in _files(path):
            try:
                vendors += _read_file(file)
            except (OSError, errors.InvalidMessage) as e:
                if path == KEYLIME_STORE:
                    log.warning("left out file=%s reason=%s", file, e)
                else:
                    faults.append(f"{file}: {e}")
    if faults:
        raise errors.InvalidConfig("enrolment.ek_authorities", faults)
    return vendors


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.suffix in SUFFIXES:
                yield file
    elif path.exists():
        yield path


def _read_file(path: Path) -> list[crypto.X509]:
    """Return the certificates in a file. Raises OSError, InvalidMessage."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_SIZE + 1)
    if len(content) > MAX_FILE_SIZE:
        reason = f"longer than {MAX_FILE_SIZE} bytes, split it"
        raise errors.InvalidMessage("EK authority", reason)
    return endorsement.load_authorities(content)
