# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (7).

Which log tells of which PCR, and that another kind of log fits beside those there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Optional

import pytest

from ovirt_tcp_plugin import boot_hook
from ovirt_tcp_plugin.messages import eventlog, evidence
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.findings import FindingCode, next_step
from ovirt_tcp_plugin.messages.reference_values import from_boot
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.appraisal import logs
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised, appraise
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.logs.firmware import FirmwareLog
from ovirt_tcp_plugin.verifier.appraisal.logs.measurement_log import MeasurementLog, ReplayedLog
from ovirt_tcp_plugin.verifier.appraisal.logs.passed_over import notes as passed_over_notes
from ovirt_tcp_plugin.verifier.appraisal.logs.txt import TxtLog
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from ovirt_tcp_plugin.verifier.appraisal.reference_part import Difference, ReferencePart
from tests.verifier.software_tpm import SoftwareTpm

TXT_PCRS = (17, 18)
BANK = "sha256"


def check(tpm: SoftwareTpm, required: Sequence[int], **sent: bytes) -> logs.ProvenSteps:
    values = {pcr: tpm.pcrs[pcr] for pcr in required}
    return logs.check(logs.SentLogs(sent), BANK, required, values)


@pytest.fixture
def tpm() -> SoftwareTpm:
    return SoftwareTpm()


class TestKinds:
    @pytest.mark.parametrize("pcr", range(24))
    def test_a_pcr_is_told_by_one_kind(self, pcr: int) -> None:
        assert len([log for log in logs.KINDS if log.tells_of(pcr)]) == 1

    def test_evidence_carries_these_kinds_and_no_others(self) -> None:
        assert tuple(log.kind for log in logs.KINDS) == evidence.LOGS
        assert set(evidence.PADDED_LOGS) < set(evidence.LOGS)


class TestAbsence:
    """A log that was not sent is told with the host's own word, and its own way out."""

    @pytest.mark.parametrize(
        ("required", "sent", "expected"),
        [
            pytest.param((0, 7), {}, ["firmware_log_missing"], id="no firmware log"),
            pytest.param(TXT_PCRS, {}, ["log_missing"], id="no TXT log"),
            pytest.param(
                (0, 7, *TXT_PCRS), {}, ["log_missing", "firmware_log_missing"], id="no log"
            ),
            pytest.param(
                (0, 7, 17, 18), {"txt": b"its log"}, ["firmware_log_missing"], id="one of two"
            ),
        ],
    )
    def test_each_missing_log_is_told_once_under_its_own_code(
        self,
        tpm: SoftwareTpm,
        required: Sequence[int],
        sent: dict[str, bytes],
        expected: list[str],
    ) -> None:
        for pcr in (0, 7):
            tpm.pcrs[pcr] = b"\1" * 32
        if sent:
            sent = {"txt": tpm.log or b""}
        found = check(tpm, required, **sent).findings
        assert [finding.code for finding in found] == expected

    def test_what_the_host_says_of_it_stands_in_the_text(self, tpm: SoftwareTpm) -> None:
        note = "no event log of the firmware: [Errno 2] No such file: binary_bios_measurements"
        sent = logs.SentLogs({}, {"firmware": evidence.Absence("absent", note)})
        (finding,) = logs.check(sent, BANK, (0,), {0: tpm.pcrs[0]}).findings
        assert finding.text.endswith(f"; the host says: {note}")
        assert "EFI stub" in next_step(finding.code) and "Secure Boot" in next_step(finding.code)

    def test_a_kernel_that_is_locked_down_has_a_way_out_of_its_own(self, tpm: SoftwareTpm) -> None:
        absence = evidence.Absence(boot_hook.LOCKED_DOWN, boot_hook.WAY_OUT)
        sent = logs.SentLogs({}, {"txt": absence})
        (finding,) = logs.check(sent, BANK, (17,), {17: tpm.pcrs[17]}).findings
        assert finding.code == "log_locked_down"
        assert "Secure Boot off" in next_step(finding.code)
        assert "profile uefi" in next_step(finding.code)

    def test_a_host_that_lies_about_a_log_that_it_sends_is_not_heard(
        self, tpm: SoftwareTpm
    ) -> None:
        absence = {"txt": evidence.Absence(boot_hook.LOCKED_DOWN, "x")}
        sent = logs.SentLogs({"txt": eventlog.encode([], [BANK])}, absence)
        (finding,) = logs.check(sent, BANK, (17,), {17: tpm.pcrs[17]}).findings
        assert finding.code == "log_missing"
        assert "host says" not in finding.text


class TestReplay:
    def test_a_log_of_another_boot_proves_nothing_and_says_so(self, tpm: SoftwareTpm) -> None:
        other = SoftwareTpm()
        other.boot([*other.events[:-1], other.events[-1]._replace(digests={BANK: b"x" * 32})])
        proven = check(tpm, TXT_PCRS, txt=other.log or b"")
        assert [finding.code for finding in proven.findings] == ["log_differs"]
        assert {step.pcr for step in proven.steps} < set(TXT_PCRS)

    def test_steps_of_a_launch_that_the_log_does_not_tell_of_prove_nothing(
        self, tpm: SoftwareTpm
    ) -> None:
        # What a host can do that never launched: extend the good digests from all ones.
        relabelled = [event._replace(type=0x40A) for event in tpm.events]
        tpm.boot(relabelled)
        assert tpm.pcrs[17] == eventlog.replay(relabelled, BANK, [17])[17]
        proven = check(tpm, TXT_PCRS, txt=tpm.log or b"")
        assert {finding.code for finding in proven.findings} == {"log_without_launch"}
        assert proven.steps == ()

    def test_firmware_that_extends_another_bank_only_is_told_so(self) -> None:
        event = eventlog.Event(0, 8, {"sha1": b"f" * 20}, b"")
        tpm = SoftwareTpm()
        proven = check(tpm, (0, 7), firmware=eventlog.encode([event], ["sha1", BANK]))
        assert [finding.code for finding in proven.findings] == ["bank_not_extended"]
        assert "in bank sha1, not in sha256" in proven.findings[0].text

    def test_a_log_that_was_too_long_to_be_sent_is_told_with_its_size(
        self, tpm: SoftwareTpm
    ) -> None:
        values = {pcr: tpm.pcrs[pcr] for pcr in (0, *TXT_PCRS)}
        sent = {"txt": tpm.log or b""}
        proven = logs.check(
            logs.SentLogs(sent, oversized={"firmware": 5_000_000}), BANK, list(values), values
        )
        assert [finding.code for finding in proven.findings] == ["log_oversized"]
        assert "the firmware is too long to be read: it has 5000000 bytes" in (
            proven.findings[0].text
        )
        assert {step.pcr for step in proven.steps} == set(TXT_PCRS)

    def test_nothing_is_missing_where_the_only_log_is_too_long(self, tpm: SoftwareTpm) -> None:
        values = {pcr: tpm.pcrs[pcr] for pcr in (0, 7)}
        proven = logs.check(
            logs.SentLogs({}, oversized={"firmware": 5_000_000}), BANK, (0, 7), values
        )
        assert [finding.code for finding in proven.findings] == ["log_oversized"]

    def test_a_long_log_of_no_required_pcr_is_nobodys_business(self, tpm: SoftwareTpm) -> None:
        values = {pcr: tpm.pcrs[pcr] for pcr in TXT_PCRS}
        sent = {"txt": tpm.log or b""}
        proven = logs.check(
            logs.SentLogs(sent, oversized={"firmware": 5_000_000}), BANK, TXT_PCRS, values
        )
        assert proven.findings == []

    def test_a_log_with_too_many_events_of_the_required_pcrs_is_oversized(self) -> None:
        event = eventlog.Event(0, 8, {BANK: b"f" * 32}, b"")
        log = eventlog.encode([event] * (eventlog.MAX_EVENTS + 1), [BANK])
        proven = check(SoftwareTpm(), (0, 7), firmware=log)
        assert [finding.code for finding in proven.findings] == ["log_oversized"]
        assert "more than 4096 events" in proven.findings[0].text

    def test_a_boot_loader_may_log_thousands_of_commands_into_other_pcrs(self) -> None:
        first = eventlog.Event(0, 8, {BANK: b"f" * 32}, b"")
        command = eventlog.Event(8, 13, {BANK: b"c" * 32}, b"grub_cmd: insmod part_gpt".ljust(80))
        firmware = [first] + [command] * 16_000
        log = eventlog.encode(firmware, [BANK])
        tpm = SoftwareTpm()
        tpm.pcrs[0] = eventlog.replay([first], BANK, [0])[0]
        assert len(log) > 2_000_000
        assert check(tpm, (0,), firmware=log).findings == []

    def test_what_nothing_depends_on_is_no_fault_and_told(self) -> None:
        event = eventlog.Event(0, 8, {BANK: b"f" * 32}, b"")
        odd = eventlog.Event(5, 0x800000F7, {BANK: b"o" * 32}, b"")
        nowhere = eventlog.Event(0x01C40200, 8, {BANK: b"n" * 32}, b"")
        tpm = SoftwareTpm()
        tpm.pcrs[0] = eventlog.replay([event], BANK, [0])[0]
        proven = check(tpm, (0,), firmware=eventlog.encode([event, odd, nowhere, odd], [BANK]))
        assert proven.findings == []
        assert proven.notes == (
            "the firmware log has 2 events of the unknown type 0x800000f7: "
            "they concern no judged PCR",
            "the firmware log has 1 events of the index 0x1c40200, which no PCR has: "
            "they concern no judged PCR",
        )

    def test_of_many_odd_things_a_few_are_named_and_the_others_counted(self) -> None:
        passed_over = eventlog.PassedOver({number: 2 for number in range(0x90, 0x99)}, {}, {})
        (note,) = passed_over_notes("txt", passed_over)
        assert note.count("0x00") == 4
        assert "10 of 5 others" in note

    def test_one_malformed_log_leaves_no_step(self, tpm: SoftwareTpm) -> None:
        proven = check(tpm, (0, *TXT_PCRS), txt=tpm.log or b"", firmware=b"x")
        assert ([finding.code for finding in proven.findings], proven.steps) == (
            ["log_malformed"],
            (),
        )

    def test_a_log_of_no_required_pcr_is_not_read(self, tpm: SoftwareTpm) -> None:
        proven = check(tpm, TXT_PCRS, txt=tpm.log or b"", firmware=b"x")
        assert proven.findings == []

    def test_a_startup_locality_is_the_first_step_whatever_the_order_of_the_logs(self) -> None:
        start = eventlog.Event(
            0, eventlog.NO_ACTION, {BANK: bytes(32)}, eventlog.STARTUP_LOCALITY + b"\3"
        )
        firmware = [start, eventlog.Event(0, 8, {BANK: b"f" * 32}, b"")]
        tpm = SoftwareTpm()
        tpm.pcrs[0] = eventlog.replay(firmware, BANK, [0])[0]
        proven = check(
            tpm, (0, *TXT_PCRS), txt=tpm.log or b"", firmware=eventlog.encode(firmware, [BANK])
        )
        assert proven.findings == []
        assert proven.steps[0].component == "startup_locality"
        assert proven.steps[1].pcr == TXT_PCRS[0]
        assert proven.steps[-1].pcr == 0

    def test_the_txt_log_may_end_in_padding_and_the_firmwares_may_not(
        self, tpm: SoftwareTpm
    ) -> None:
        padded = (tpm.log or b"") + bytes(64)
        assert TxtLog().parse(padded, TXT_PCRS).recorded(BANK) >= set(TXT_PCRS)
        with pytest.raises(Exception, match="malformed event log"):
            FirmwareLog().parse(padded, TXT_PCRS)


@dataclasses.dataclass(frozen=True)
class RunningEntries:
    """Entries of a log that grows: a line each, and PCR 10 is their count when it was quoted."""

    lines: tuple[bytes, ...]
    notes: tuple[str, ...] = ()

    def recorded(self, bank: str) -> Collection[int]:
        return {10} if self.lines else set()

    def replay(self, bank: str, quoted: Mapping[int, bytes]) -> ReplayedLog:
        count = quoted[10][-1]
        if count > len(self.lines):
            return ReplayedLog((), {10: FindingCode.LOG_DIFFERS.finding("the log is too short")})
        return ReplayedLog(tuple(Step(10, "module", line.hex()) for line in self.lines[:count]), {})


class RunningLog:
    """A kind of log as IMA's: ahead of its quote, and judged as a set."""

    kind = "running"

    def tells_of(self, pcr: int) -> bool:
        return pcr == 10

    def parse(self, untrusted: Optional[bytes], pcrs: Collection[int]) -> RunningEntries:
        return RunningEntries(tuple((untrusted or b"").split()))

    def compare(
        self, part: ReferencePart, steps: Sequence[Step], pcr: int, host_name: str
    ) -> Optional[Difference]:
        unknown = [step for step in steps if not part.allows("module", step.digest, host_name)]
        return Difference(1, Finding(8, "module_differs", unknown[0].digest)) if unknown else None


class TestAnotherKind:
    """Nothing but the list of kinds knows what kinds there are."""

    @pytest.fixture(autouse=True)
    def running_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class NotOfTen(FirmwareLog):
            def tells_of(self, pcr: int) -> bool:
                return pcr != 10 and super().tells_of(pcr)

        kinds: tuple[MeasurementLog, ...] = (TxtLog(), NotOfTen(), RunningLog())
        monkeypatch.setattr(logs, "KINDS", kinds)

    @pytest.mark.parametrize(
        ("log", "codes"),
        [
            (b"good evil", ["module_differs"]),
            (b"good", ["log_differs", "steps_unproven"]),
            (b"", ["log_missing", "steps_unproven"]),
            (b"good good", []),
            (b"good good evil", []),  # it came after the quote
        ],
    )
    def test_it_is_replayed_as_a_prefix_and_judged_as_a_set(
        self, tpm: SoftwareTpm, log: bytes, codes: list[str]
    ) -> None:
        required = {BANK: (10,)}
        tpm.pcrs[10] = bytes(31) + b"\2"
        issued = IssuedNonce(evidence.Challenge(bytes(32), required, 1000), "host-1", 0, 1000)
        reported = tpm.report(issued, logs={"running": log})
        golden = from_boot("golden", BANK, [Step(10, "module", b"good".hex())])
        outcome = appraise(
            reported, tpm.host(), issued, None, None, required, Criteria(BANK, [golden]), 1
        )
        assert isinstance(outcome, Appraised)
        assert [finding.code for finding in outcome.findings] == codes
        assert outcome.level is (Level.UNTRUSTED if codes else Level.TRUSTED)
