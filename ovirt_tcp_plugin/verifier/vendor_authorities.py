# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The authorities of TPM vendors, as an administrator or a package put them onto the machine.

And the lists of what they revoked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier import endorsement, revocation
from ovirt_tcp_plugin.verifier.revocation import RevocationList, Revocations, VendorTrust
from ovirt_tcp_plugin.verifier.settings import KEYLIME_STORE, Enrolment

log = logging.getLogger("verifier.vendor_authorities")

MAX_FILE_SIZE = 1024 * 1024
SUFFIXES = (".pem", ".crt", ".cer")
LIST_SUFFIXES = (".crl", ".pem", ".der")
MAX_LISTS = 400


def read_trust(options: Enrolment) -> VendorTrust:
    """Return which vendors are believed, and what they revoked. Raises InvalidConfig."""
    authorities = read(options.ek_authorities)
    return VendorTrust(authorities, read_revocations(options.ek_revocations, authorities))


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
        for file in _files(path, SUFFIXES):
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


def read_revocations(paths: Iterable[Path], authorities: Sequence[crypto.X509]) -> Revocations:
    """Return the revocation lists in these directories and files.

    A path that does not exist is passed over. A file that is of no use is told, and hurts nothing
    else: without a list nothing is refused that was not refused before.
    """
    lists: list[RevocationList] = []
    faults: dict[str, str] = {}
    for path in paths:
        for file in _files(path, LIST_SUFFIXES):
            try:
                found = revocation.parse(_read_bounded(file), str(file))
            except (OSError, errors.InvalidMessage) as e:
                faults[str(file)] = str(e)
                continue
            if len(lists) + len(found) > MAX_LISTS:
                faults[str(file)] = f"more than {MAX_LISTS} lists"
                continue
            lists += found
    read_lists = revocation.compared(lists, authorities)
    faults.update(read_lists.faults)
    for name, reason in faults.items():
        log.warning("left out file=%s reason=%s", name, reason)
    return Revocations(read_lists.lists, faults)


def _files(path: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.suffix in suffixes:
                yield file
    elif path.exists():
        yield path


def _read_file(path: Path) -> list[crypto.X509]:
    """Return the certificates in a file. Raises OSError, InvalidMessage."""
    return endorsement.load_authorities(_read_bounded(path))


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_SIZE + 1)
    if len(content) > MAX_FILE_SIZE:
        reason = f"longer than {MAX_FILE_SIZE} bytes, split it"
        raise errors.InvalidMessage("EK authority", reason)
    return content
