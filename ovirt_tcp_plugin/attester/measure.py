# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain step 1: a Challenge goes in, Evidence of this boot comes out.

Nothing is judged here, and nothing is left out because it looks bad: a missing log, an inactive
bank or a PCR without a launch is reported as it is.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple, Optional, Protocol

import ovirt_tcp_plugin
from ovirt_tcp_plugin import boot_hook, errors
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.messages import evidence, tpm2

log = logging.getLogger("attester.measure")

# Something extends a quoted PCR between quote and read: IMA may do so often, but not this often in
# a row.
MAX_TRIES = 8
# A word and a sentence.
MAX_ABSENCE_SIZE = 1024

_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class PcrReader(Protocol):
    """A TPM whose PCRs can be read."""

    def read_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        """Return the values of the selected PCRs. Raises Unavailable."""


class QuotingKey(Protocol):
    """An attestation key in its TPM, of either family."""

    def quote(self, qualifying_data: bytes, selection: tpm2.Selection) -> tuple[bytes, bytes]:
        """Return (signed bytes, signature). Raises Unavailable."""

    def fits(self, attest: bytes, pcrs: tpm2.PcrValues) -> bool:
        """Return whether the quote is one of these values."""

    def activate(self, credential: bytes, encrypted_secret: bytes) -> bytes:
        """Return the secret that a verifier protected for this key and the EK of its TPM.

        Raises:
            Unavailable: the TPM refuses.
            InvalidMessage: what the verifier sent is not of the right form.
        """

    def unload(self) -> None:
        """Flush the key if it is loaded. Raises Unavailable."""


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where the host tells of its boot.

    Attributes:
        boot_id: file with the kernel's boot id.
        logs: file of each event log by kind ("txt", "firmware").
        clock: milliseconds of CLOCK_BOOTTIME.
    """

    boot_id: Path
    logs: Mapping[str, Path]
    clock: Callable[[], int] = boottime_ms


def measure(
    tpm: PcrReader, ak: QuotingKey, challenge: evidence.Challenge, sources: Sources
) -> evidence.Evidence:
    """Return the evidence that answers a challenge.

    Raises:
        Unavailable: the TPM does not answer, the boot id cannot be read, or the PCRs do not hold
            still.
    """
    boot_id = read_boot_id(sources.boot_id)
    quoted_ms = sources.clock()
    qualifying_data = evidence.qualifying_data(challenge.nonce, boot_id, quoted_ms)
    attest, signature, pcrs = _quote(tpm, ak, qualifying_data, challenge.selection)
    # After the quote: what is measured meanwhile is in the log, and the verifier sees log and PCR
    # differ at worst.
    handed_over = read_logs(sources, challenge.max_log_size)
    absences: Mapping[str, evidence.Absence] = {}
    if challenge.takes_absences:
        absences = read_absences(sources, handed_over.logs)
    return evidence.Evidence(
        nonce=challenge.nonce,
        attest=attest,
        signature=signature,
        pcrs=pcrs,
        logs=handed_over.logs,
        boot_id=boot_id,
        boottime_ms=quoted_ms,
        agent_version=ovirt_tcp_plugin.__version__,
        absences=absences,
        oversized_logs=handed_over.oversized if challenge.takes_oversized_logs else {},
    )


def _quote(
    tpm: PcrReader, ak: QuotingKey, qualifying_data: bytes, selection: tpm2.Selection
) -> tuple[bytes, bytes, tpm2.PcrValues]:
    """Return quote, signature and the PCR values that fit the quote.

    Quote and PCR_Read are different commands, so the values are read before and after until one
    reading fits.
    """
    pcrs = tpm.read_pcrs(selection)
    for _ in range(MAX_TRIES):
        attest, signature = ak.quote(qualifying_data, selection)
        if ak.fits(attest, pcrs):
            return attest, signature, pcrs
        pcrs = tpm.read_pcrs(selection)
        if ak.fits(attest, pcrs):
            return attest, signature, pcrs
    raise errors.Unavailable("TPM", f"the PCRs changed during each of {MAX_TRIES} quotes")


def read_boot_id(path: Path) -> str:
    """Return the kernel's boot id. Raises Unavailable."""
    try:
        with path.open("rb") as file:
            boot_id = file.read(64).decode("ascii", "replace").strip()
    except OSError as e:
        raise errors.Unavailable(f"boot id {path}", e.strerror or str(e)) from e
    if not _BOOT_ID.fullmatch(boot_id):
        raise errors.Unavailable(f"boot id {path}", "the file holds no boot id")
    return boot_id


class HandedOverLogs(NamedTuple):
    """The event logs that this host has, by kind.

    Attributes:
        oversized: sizes in bytes of those that are too long to be sent.
    """

    logs: Mapping[str, bytes]
    oversized: Mapping[str, int]


class OversizedLogError(Exception):
    """A log is too long to be sent. Its only argument is its size in bytes."""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.args[0])


def read_logs(sources: Sources, max_size: int) -> HandedOverLogs:
    """Return the event logs that this host has.

    Args:
        max_size: bytes of all of them together.
    """
    logs = {}
    oversized = {}
    left = max_size
    for kind, path in sources.logs.items():
        try:
            content = read_log(kind, path, left)
        except OversizedLogError as e:
            log.warning("oversized log=%s path=%s size=%d limit=%d", kind, path, e.size, left)
            oversized[kind] = e.size
            continue
        if content is not None:
            logs[kind] = content
            left -= len(content)
    return HandedOverLogs(logs, oversized)


def read_absences(sources: Sources, logs: Collection[str]) -> Mapping[str, evidence.Absence]:
    """Return why the other kinds of logs are not there, as far as the boot hook says so."""
    absences = {}
    for kind, path in sources.logs.items():
        if kind not in logs:
            absence = _read_absence(path.with_name(path.name + boot_hook.ABSENCE))
            if absence is not None:
                absences[kind] = absence
    return absences


def _read_absence(path: Path) -> Optional[evidence.Absence]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_ABSENCE_SIZE)
    except OSError:
        return None  # the hook did not run, or is of an older release
    reason, _, note = content.decode("ascii", "replace").partition("\n")
    printable = "".join(character for character in note if character.isprintable())
    return evidence.Absence(
        reason[: evidence.MAX_REASON_LENGTH], printable[: evidence.MAX_NOTE_LENGTH]
    )


def read_log(kind: str, path: Path, max_size: int) -> Optional[bytes]:
    """Return an event log as it is, None if there is none or it cannot be read.

    Raises:
        OversizedLogError: it has more than `max_size` bytes. Of such a log the hook hands over the
            length alone: a file that long, and empty.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(max_size + 1) if size <= max_size else b""
    except FileNotFoundError:
        return None
    except OSError as e:
        log.warning("unreadable log=%s path=%s error=%s", kind, path, e.strerror)
        return None
    size = max(size, len(content))  # a file of securityfs tells no size before
    if size > max_size:
        raise OversizedLogError(size)
    return content
