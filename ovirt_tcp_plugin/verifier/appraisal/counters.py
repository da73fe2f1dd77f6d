# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (5): the TPM's counters only grow, and they agree with the boot id."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Optional

from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import Counters


@dataclasses.dataclass(frozen=True)
class BootCounters:
    """Where a host's TPM stood at its last authentic quote.

    All counters are zero for a TPM 1.2, which counts nothing.
    """

    boot_id: str
    reset_count: int
    restart_count: int
    clock: int


def boot_of(boot_id: str, counters: Optional[Counters]) -> BootCounters:
    """Return where the TPM stands, by the counters of a quote."""
    if counters is None:
        return BootCounters(boot_id, 0, 0, 0)
    return BootCounters(boot_id, counters.reset, counters.restart, counters.clock)


def check_counters(
    boot: BootCounters, counters: Optional[Counters], previous: Optional[BootCounters]
) -> Iterator[Finding]:
    """Return what is wrong with the counters, compared with the last authentic quote.

    A new kernel means a TPM reset, and a TPM reset means a new kernel. Where nothing is counted,
    nothing can be checked.
    """
    if counters is None or previous is None:
        return
    yield from _check_growth(boot, previous)
    was_reset = boot.reset_count > previous.reset_count
    same_reset = boot.reset_count == previous.reset_count
    same_kernel = boot.boot_id == previous.boot_id
    # A resume moves the restart counter, and kexec may follow it; a kernel that really booted comes
    # with a reset.
    if same_reset and not same_kernel:
        yield FindingCode.KERNEL_WITHOUT_RESET.finding(
            "another kernel runs, but the TPM was not reset (kexec): reboot the host"
        )
    if was_reset and same_kernel:
        yield FindingCode.RESET_WITHOUT_BOOT.finding(
            "the TPM was reset under a running kernel: reboot the host"
        )


def _check_growth(boot: BootCounters, previous: BootCounters) -> Iterator[Finding]:
    counted = (boot.reset_count, boot.restart_count)
    counted_before = (previous.reset_count, previous.restart_count)
    if counted < counted_before:
        yield FindingCode.COUNTERS_BACK.finding(
            "the TPM's reset or restart counter went back",
            expected=f"at least reset {previous.reset_count}, restart {previous.restart_count}",
            seen=f"reset {boot.reset_count}, restart {boot.restart_count}",
        )
    elif counted == counted_before and boot.clock < previous.clock:
        yield FindingCode.CLOCK_BACK.finding(
            "the TPM's clock went back within one boot",
            expected=str(previous.clock),
            seen=str(boot.clock),
        )
