# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (5) of the boot time: nobody's claim is ahead of the clock in the TPM."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised
from ovirt_tcp_plugin.verifier.appraisal.boot_time import ROLLBACK_MS, SLACK_MS, check_boot_time
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import Counters
from tests.verifier.appraisal.judging import assert_untrusted, judge
from tests.verifier.software_tpm import BOOT_ID, SoftwareTpm

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# As often as the server asks.
REFRESH_MS = 200_000
OTHER_BOOT_ID = BOOT_ID.replace("5", "6")
# Where this host's TPM stood when its boot had lasted for a day.
CLOCK_MS = 1000 * DAY_MS
YESTERDAY = BootCounters(BOOT_ID, 5, 0, CLOCK_MS, DAY_MS - CLOCK_MS)


class Reports:
    """One report after the other, each judged against what is remembered of those before."""

    def __init__(self, previous: BootCounters | None = YESTERDAY) -> None:
        self.previous = previous
        self.lies: list[str] = []

    def report(
        self, boottime_ms: int, clock_ms: int, boot_id: str = BOOT_ID, **changes: object
    ) -> list[str]:
        """Return the codes of what is wrong with a report."""
        counted = {"reset": 5, "restart": 0, "clock": clock_ms, "safe": True, **changes}
        counters = Counters(**counted)  # type: ignore[arg-type]
        timed = check_boot_time(boot_id, boottime_ms, counters, self.previous)
        found = [finding.code for finding in timed.findings]
        if not found or self.previous is None:
            self.previous = BootCounters(
                boot_id, counters.reset, counters.restart, clock_ms, timed.lead_ms
            )
        return found


@pytest.fixture
def reports() -> Reports:
    return Reports()


class TestAhead:
    @pytest.mark.parametrize("ahead_ms", [HOUR_MS, DAY_MS, 365 * DAY_MS])
    def test_the_first_report_of_all(self, ahead_ms: int) -> None:
        tpm = SoftwareTpm()
        tpm.boottime_ms = tpm.clock + ahead_ms
        outcome = assert_untrusted(judge(tpm), (5, "boot_time_ahead"))
        (finding,) = outcome.findings
        assert "for longer than its TPM counted" in finding.text
        assert finding.seen == f"{tpm.boottime_ms} ms"

    @pytest.mark.parametrize("ahead_ms", [HOUR_MS, DAY_MS, 365 * DAY_MS])
    def test_a_later_report_of_the_same_boot(self, reports: Reports, ahead_ms: int) -> None:
        passed = REFRESH_MS
        found = reports.report(DAY_MS + passed + ahead_ms, CLOCK_MS + passed)
        assert found == ["boot_time_ahead"]

    def test_the_first_report_of_a_new_boot(self, reports: Reports) -> None:
        minutes = 5 * 60_000
        found = reports.report(HOUR_MS, CLOCK_MS + minutes, OTHER_BOOT_ID, reset=6)
        assert found == ["boot_time_ahead"]

    def test_many_small_lies_are_worth_no_more_than_one(self, reports: Reports) -> None:
        second = 1000
        boottime_ms, clock_ms = DAY_MS, CLOCK_MS
        for _ in range(600):
            clock_ms += second
            boottime_ms += second
            if not reports.report(boottime_ms + SLACK_MS // 2, clock_ms):
                boottime_ms += SLACK_MS // 2
        honest_ms = DAY_MS + 600 * second
        assert boottime_ms - honest_ms <= SLACK_MS + 0.3 * 600 * second

    def test_a_long_honest_time_buys_no_lie(self, reports: Reports) -> None:
        boottime_ms, clock_ms = DAY_MS, CLOCK_MS
        while boottime_ms < 30 * DAY_MS:
            boottime_ms += REFRESH_MS
            clock_ms += REFRESH_MS
            assert reports.report(boottime_ms, clock_ms) == []
        lie_ms = boottime_ms + REFRESH_MS + 10 * 60_000
        assert reports.report(lie_ms, clock_ms + REFRESH_MS) == ["boot_time_ahead"]

    def test_who_lied_at_first_is_believed_only_where_it_is_honest(self) -> None:
        reports = Reports(None)
        assert reports.report(365 * DAY_MS, DAY_MS) == ["boot_time_ahead"]
        assert reports.report(365 * DAY_MS + 1000, DAY_MS + 1000) == ["boot_time_ahead"]
        assert reports.report(DAY_MS, DAY_MS + 2000) == []

    def test_a_record_of_an_older_release_is_as_good_as_none(self) -> None:
        reports = Reports(BootCounters(BOOT_ID, 5, 0, DAY_MS))
        assert reports.report(3 * DAY_MS, DAY_MS + 1000) == ["boot_time_ahead"]
        assert reports.report(DAY_MS, DAY_MS + 2000) == []


class TestGood:
    """What happens to a good host, and must not become a finding."""

    def test_a_good_host_at_first_sight(self) -> None:
        outcome = judge(SoftwareTpm())
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.TRUSTED

    def test_a_slow_machine_that_needs_the_whole_life_of_a_nonce(self, reports: Reports) -> None:
        nonce_life = 15_000
        boottime_ms, clock_ms = DAY_MS, CLOCK_MS
        for number in range(100):
            boottime_ms += REFRESH_MS
            clock_ms += REFRESH_MS
            late_ms = nonce_life * (number % 2)
            assert reports.report(boottime_ms, clock_ms + late_ms) == []

    def test_a_slow_tpm_beside_a_clock_that_ntp_speeds_up(self, reports: Reports) -> None:
        boottime_ms, clock_ms = DAY_MS, CLOCK_MS
        for _ in range(1000):
            boottime_ms += REFRESH_MS * 110 // 100
            clock_ms += REFRESH_MS * 85 // 100
            assert reports.report(boottime_ms, clock_ms) == []

    def test_a_fast_tpm_that_slows_down(self, reports: Reports) -> None:
        boottime_ms, clock_ms = DAY_MS, CLOCK_MS
        for percent in [115] * 500 + [85] * 500:
            boottime_ms += REFRESH_MS
            clock_ms += REFRESH_MS * percent // 100
            assert reports.report(boottime_ms, clock_ms) == []

    def test_a_virtual_machine_that_was_paused(self, reports: Reports) -> None:
        assert reports.report(DAY_MS + 1000, CLOCK_MS + HOUR_MS) == []
        assert reports.report(DAY_MS + 2000, CLOCK_MS + HOUR_MS + 1000) == []

    def test_a_suspended_host(self, reports: Reports) -> None:
        awake = DAY_MS + 8 * HOUR_MS
        assert reports.report(awake, CLOCK_MS + 1000, restart=1) == []
        assert reports.report(awake + REFRESH_MS, CLOCK_MS + REFRESH_MS, restart=1) == []

    def test_a_host_that_was_silent_for_a_week(self, reports: Reports) -> None:
        week = 7 * DAY_MS
        assert reports.report(DAY_MS + week, CLOCK_MS + week) == []

    def test_an_orderly_reboot(self, reports: Reports) -> None:
        minutes = 5 * 60_000
        assert reports.report(minutes, CLOCK_MS + minutes, OTHER_BOOT_ID, reset=6) == []

    @pytest.mark.parametrize("jump_ms", [-ROLLBACK_MS, -4096, 0, ROLLBACK_MS])
    def test_a_power_cut(self, reports: Reports, jump_ms: int) -> None:
        minutes = 5 * 60_000
        clock_ms = CLOCK_MS + jump_ms + minutes
        changes = {"boot_id": OTHER_BOOT_ID, "reset": 6, "safe": False}
        assert reports.report(minutes, clock_ms, **changes) == []
        later = minutes + REFRESH_MS
        assert reports.report(later, clock_ms + REFRESH_MS, **changes) == []

    def test_numbers_as_large_as_a_quote_can_hold(self) -> None:
        assert Reports(None).report(2**53, 2**64 - 1) == []
