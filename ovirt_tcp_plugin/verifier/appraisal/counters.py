# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (5): the TPM's counters only grow, and they agree with the boot id."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Optional

from ovirt_tcp_plugin.messages import eventlog, tpm2
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import Counters


@dataclasses.dataclass(frozen=True)
class BootCounters:
    """Where a host's TPM stood at its last authentic quote.

    All counters are zero for a TPM 1.2, which counts nothing.

    Attributes:
        lead_ms: how far the host's boot time is ahead of the TPM's clock in this boot
            (`boot_time.py`); None when it is not known.
    """

    boot_id: str
    reset_count: int
    restart_count: int
    clock: int
    lead_ms: Optional[int] = None


def boot_of(
    boot_id: str, counters: Optional[Counters], lead_ms: Optional[int] = None
) -> BootCounters:
    """Return where the TPM stands, by the counters of a quote."""
    if counters is None:
        return BootCounters(boot_id, 0, 0, 0)
    return BootCounters(boot_id, counters.reset, counters.restart, counters.clock, lead_ms)


def check_counters(
    boot: BootCounters,
    counters: Optional[Counters],
    previous: Optional[BootCounters],
    required: tpm2.Selection,
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
    # Whatever the restart counter: kexec may follow a resume, and a kernel that really booted comes
    # with a reset.
    if same_reset and not same_kernel:
        yield FindingCode.KERNEL_WITHOUT_RESET.finding(
            "another kernel runs, but the TPM was not reset (kexec): reboot the host"
        )
    if was_reset and same_kernel:
        yield FindingCode.RESET_WITHOUT_BOOT.finding(
            "the TPM was reset under a running kernel: reboot the host"
        )
    if same_reset and same_kernel and boot.restart_count > previous.restart_count:
        yield from _check_restart(boot, previous, required)


def _check_restart(
    boot: BootCounters, previous: BootCounters, required: tpm2.Selection
) -> Iterator[Finding]:
    """Return what is wrong with a TPM that was restarted under a running kernel.

    A restart sets the static PCRs back, and who extends them again with the digests of a good log
    hides what really booted. The PCRs of a launch return to all ones, and only a launch gets them
    away from there. How often the TPM was restarted before the first report of a boot says nothing:
    a measured launch counts as a restart (Part 2, 10.11.1).
    """
    ((_, indices),) = required.items()
    if any(index not in eventlog.DRTM_PCRS for index in indices):
        yield FindingCode.RESTARTED.finding(
            "the TPM was restarted under a running kernel, as by a suspend: reboot the host",
            expected=f"restart {previous.restart_count}",
            seen=f"restart {boot.restart_count}",
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
