# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The authorities of TPM vendors, as an administrator put them into a directory."""

from __future__ import annotations

from pathlib import Path

from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier import endorsement

MAX_FILE_SIZE = 1024 * 1024


def read(directory: Path) -> list[crypto.X509]:
    """Return the certificates in the *.pem files of a directory.

    Raises:
        InvalidConfig: a file cannot be read; trust that is only half loaded would refuse good
            hosts.
    """
    vendors = []
    faults = []
    for path in sorted(directory.glob("*.pem")):
        try:
            content = _read_bounded(path)
            vendors += endorsement.load_authorities(content)
        except (OSError, errors.InvalidMessage) as e:
            faults.append(f"{path.name}: {e}")
            continue
        if len(content) > MAX_FILE_SIZE:
            faults.append(f"{path.name}: longer than {MAX_FILE_SIZE} bytes, split it")
    if faults:
        raise errors.InvalidConfig(str(directory), faults)
    return vendors


def _read_bounded(path: Path) -> bytes:
    """Return a file, or one byte more of it than may be read."""
    with path.open("rb") as file:
        return file.read(MAX_FILE_SIZE + 1)
