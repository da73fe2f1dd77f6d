# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (5), too: the host's boot time is not ahead of the clock inside the signed quote.

A signed verdict begins at the boot time (CLOCK_BOOTTIME) that the agent claims. The quote binds the
claim, and says nothing of its truth: an agent that claims a future moment would collect verdicts
that the gate takes long after the host lost its trust. The TPM's clock is no agent's word.

Both clocks count milliseconds, so within a boot the boot time's *lead*, boot time minus TPM clock,
stays as it is. What is remembered is the lowest lead, raised with the time that both may really
drift apart: a bound that is kept from the first report to the last, so that a thousand small lies
are worth no more than one.

The bounds, and why an honest host stays within them:

- The agent reads its boot time before the quote, so the claim is early, never late, by at most the
  life of a nonce. SLACK_MS is four times that.
- A TPM's oscillator may be 15 % slow (Part 1, "Timing Components"), and NTP may slew the host's
  clock by 10 %: 1.1 / 0.85 is less than 1 + DRIFT. A step of the wall clock moves neither.
- While the host is suspended, only the host counts. But then the TPM's restart counter moves, and
  the lead is measured again.
- The TPM's clock is stored at least every ROLLBACK_MS (Part 2, 10.11.1). When power was cut it may
  go back by so much. The quote says so (`safe`), and the bound of that boot is wider.

At the first report of a boot the boot began after the last quote of the boot before. At the first
report of all, the clock itself is the bound: it counts since the TPM was made or cleared. It cannot
be told whether somebody set it forward (TPM2_ClockSet, owner authorization).

Drift is counted in whole numbers, as numbers in a quote may be beyond what a float can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import Counters

SLACK_MS = 60_000
# Percent by which the host's clock may run faster than the TPM's.
DRIFT = 30
ROLLBACK_MS = 1 << 22


class TimedBoot(NamedTuple):
    """The lead to remember for the next quote, None if there is none; and what is wrong."""

    lead_ms: Optional[int]
    findings: Sequence[Finding] = ()


def check_boot_time(
    boot_id: str,
    boottime_ms: int,
    counters: Optional[Counters],
    previous: Optional[BootCounters],
) -> TimedBoot:
    """Return whether the boot time is ahead of the TPM's clock, and by how much it may be.

    A TPM 1.2 has no clock in its quotes. Where counters and boot id disagree, that is the finding,
    or the host was suspended; the clocks did not run side by side then.
    """
    if counters is None:
        return TimedBoot(None)
    lead_ms = boottime_ms - counters.clock
    if previous is not None and _is_incomparable(boot_id, counters, previous):
        return TimedBoot(lead_ms)
    most_ms = _most_lead_ms(boot_id, counters, previous)
    remembered_ms = min(lead_ms, most_ms)
    if lead_ms <= most_ms + SLACK_MS:
        return TimedBoot(remembered_ms)
    ahead = FindingCode.BOOT_TIME_AHEAD.finding(
        "the host claims to run for longer than its TPM counted: reboot the host",
        expected=f"at most {counters.clock + most_ms + SLACK_MS} ms since its boot",
        seen=f"{boottime_ms} ms",
    )
    return TimedBoot(remembered_ms, [ahead])


def _is_incomparable(boot_id: str, counters: Counters, previous: BootCounters) -> bool:
    """Return whether the TPM's clock did not run on beside the host's since the last quote."""
    if boot_id != previous.boot_id:
        return counters.reset <= previous.reset_count
    counted = (counters.reset, counters.restart)
    return counted != (previous.reset_count, previous.restart_count)


def _most_lead_ms(boot_id: str, counters: Counters, previous: Optional[BootCounters]) -> int:
    """Return how far the boot time can be ahead of the TPM's clock, but for the slack."""
    if previous is None:
        return _drift_ms(counters.clock)
    counted_ms = counters.clock - previous.clock
    if boot_id != previous.boot_id:
        if not counters.safe:
            counted_ms += ROLLBACK_MS
        return counted_ms + _drift_ms(counted_ms) - counters.clock
    if previous.lead_ms is None:
        return _drift_ms(counters.clock)
    return previous.lead_ms + _drift_ms(counted_ms)


def _drift_ms(counted_ms: int) -> int:
    return max(counted_ms, 0) * DRIFT // 100
