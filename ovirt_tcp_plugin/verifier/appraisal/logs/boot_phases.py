# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What systemd extends PCR 11 by while a unified kernel image comes up: words for its phases.

The firmware's log ends before, so it replays to what the PCR was when the kernel started. The words
are known, and whatever comes behind the image's sections cannot undo them: a value that follows
from the log by the words alone is proven by it.

Source: systemd, systemd-measure(1), option --phase; systemd-pcrphase.service(8).
"""

from __future__ import annotations

import hashlib
import hmac

from ovirt_tcp_plugin.messages.firmware_pcrs import SECTIONS_PCR

# An initrd without systemd leaves out the first two.
_PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final")


def leads_to(pcr: int, bank: str, before: bytes, value: bytes) -> bool:
    """Return whether a PCR that had one value has the other, at most by phases since then."""
    if hmac.compare_digest(before, value):
        return True
    if pcr != SECTIONS_PCR:
        return False
    return any(_follows(bank, before, value, first_phase) for first_phase in range(len(_PHASES)))


def _follows(bank: str, before: bytes, value: bytes, first_phase: int) -> bool:
    """Return whether extending by this phase and those behind it leads to a value."""
    current = before
    for phase in _PHASES[first_phase:]:
        digest = hashlib.new(bank, phase.encode("ascii")).digest()
        current = hashlib.new(bank, current + digest).digest()
        if hmac.compare_digest(current, value):
            return True
    return False
