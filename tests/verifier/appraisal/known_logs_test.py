# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (7) by the name of a log: as good as the log itself, and no better."""

from __future__ import annotations

import dataclasses

import pytest

from ovirt_tcp_plugin.messages import components, evidence, reference_values
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised, appraise, logs_for
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.known_logs import KnownLogs
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from ovirt_tcp_plugin.verifier.settings import PROFILES
from tests.verifier.appraisal.judging import (
    OTHER_BOOT_ID,
    assert_discarded,
    good_boot,
    issue,
    judge,
)
from tests.verifier.software_tpm import BOOT_ID, SoftwareTpm, firmware_events, launch_events


@pytest.fixture
def tpm() -> SoftwareTpm:
    return SoftwareTpm()


def known_of(tpm: SoftwareTpm) -> KnownLogs:
    """Return what is remembered of a host that sent its logs."""
    outcome = judge(tpm)
    assert isinstance(outcome, Appraised)
    return KnownLogs(BOOT_ID, outcome.log_digests, outcome.measured)


def named(tpm: SoftwareTpm, known: KnownLogs) -> evidence.Evidence:
    return tpm.report(issue(), logs={}, log_digests=known.digests)


class TestDiscards:
    def test_a_log_that_nobody_sent(self, tpm: SoftwareTpm) -> None:
        outcome = judge(tpm, named(tpm, known_of(tpm)), known=None)
        assert_discarded(outcome, 0, "log_unknown", "a log that is not known here")

    def test_another_log_than_the_one_that_was_sent(self, tpm: SoftwareTpm) -> None:
        other = SoftwareTpm()
        other.boot(launch_events(kernel=b"another"))
        reported = named(tpm, known_of(other))
        assert_discarded(judge(tpm, reported, known=known_of(tpm)), 0, "log_unknown", "a log")

    def test_the_log_of_another_boot(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        tpm.boot_id = OTHER_BOOT_ID
        assert_discarded(judge(tpm, named(tpm, known), known=known), 0, "log_unknown", "a log")

    @pytest.mark.parametrize(
        "digests", [{"firmware": "a" * 64}, {"txt": "a" * 64, "firmware": "a" * 64}]
    )
    def test_the_name_of_another_kind_of_log(
        self, tpm: SoftwareTpm, digests: dict[str, str]
    ) -> None:
        known = known_of(tpm)
        reported = tpm.report(issue(), logs={}, log_digests=digests)
        assert_discarded(judge(tpm, reported, known=known), 0, "log_unknown", "a log")

    def test_a_log_that_was_read_for_fewer_pcrs(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        required = {"sha256": (17, 18, 19)}
        outcome = judge(tpm, named(tpm, known), known=known, required=required)
        assert_discarded(outcome, 0, "log_unknown", "a log")

    def test_a_log_that_was_read_in_another_bank(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        measured = dataclasses.replace(known.measured, bank="sha1")
        other = dataclasses.replace(known, measured=measured)
        assert_discarded(judge(tpm, named(tpm, known), known=other), 0, "log_unknown", "a log")

    def test_a_log_whose_parts_an_older_release_named(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        vocabulary = components.VOCABULARY - 1
        measured = dataclasses.replace(known.measured, vocabulary=vocabulary)
        older = dataclasses.replace(known, measured=measured)
        assert_discarded(judge(tpm, named(tpm, known), known=older), 0, "log_unknown", "a log")

    def test_a_known_log_makes_no_evidence_genuine(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        reported = dataclasses.replace(named(tpm, known), attest=b"made up")
        assert_discarded(judge(tpm, reported, known=known), 3, "bad_signature", "not signed")


class TestUntrusted:
    def test_an_evil_kernel_under_the_name_of_a_good_log(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        tpm.boot(launch_events(kernel=b"evil"))
        outcome = judge(tpm, named(tpm, known), known=known)
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.UNTRUSTED
        codes = [(finding.check, finding.code) for finding in outcome.findings]
        assert codes == [(7, "log_differs"), (8, "steps_unproven")]
        assert outcome.findings[0].expected == known.measured.values[17]
        assert outcome.findings[0].seen == tpm.pcrs[17].hex()
        assert outcome.log_digests == {}

    def test_no_launch_under_the_name_of_a_good_log(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        tpm.never_launch()
        outcome = judge(tpm, named(tpm, known), known=known)
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.UNTRUSTED
        assert outcome.findings[0].code == "no_launch"

    def test_a_value_that_the_tpm_did_not_sign(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        good = {"sha256": {17: tpm.pcrs[17], 18: tpm.pcrs[18]}}
        tpm.boot(launch_events(kernel=b"evil"))
        reported = tpm.report(issue(), logs={}, log_digests=known.digests, pcrs=good)
        outcome = judge(tpm, reported, known=known)
        assert isinstance(outcome, Appraised)
        assert outcome.findings[0].code == "values_differ"

    def test_reference_values_that_changed_meanwhile(self, tpm: SoftwareTpm) -> None:
        known = known_of(tpm)
        updated = SoftwareTpm()
        updated.boot(launch_events(kernel=b"update"))
        outcome = judge(tpm, named(tpm, known), known=known, good=[good_boot("update", updated)])
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.UNTRUSTED
        assert [finding.check for finding in outcome.findings] == [8]

    @pytest.mark.parametrize("log", [None, b"rubbish", b""])
    def test_a_log_that_proves_nothing_is_not_remembered(
        self, tpm: SoftwareTpm, log: bytes | None
    ) -> None:
        tpm.log = log
        outcome = judge(tpm)
        assert isinstance(outcome, Appraised)
        assert outcome.log_digests == {}


class TestTrusted:
    @pytest.mark.parametrize("profile", sorted(PROFILES))
    def test_the_name_of_a_log_is_as_good_as_the_log(self, tpm: SoftwareTpm, profile: str) -> None:
        required = {"sha256": PROFILES[profile]}
        events = [*firmware_events(), *launch_events()]
        tpm.boot(events)
        assert tpm.log is not None
        golden = golden_of(tpm, required["sha256"])
        nonce = evidence.Challenge(b"n" * 32, required, 200)
        issued = IssuedNonce(nonce, "host-1", 0, 200)
        host = tpm.host()
        criteria = Criteria("sha256", [golden])
        sent = tpm.report(issued, logs={"txt": tpm.log, "firmware": tpm.log})

        first = appraise(sent, host, issued, None, None, required, criteria, 1)
        assert isinstance(first, Appraised)
        known = KnownLogs(BOOT_ID, first.log_digests, first.measured)
        again = evidence.name_known_logs(sent, first.log_digests)
        second = appraise(again, host, issued, None, known, required, criteria, 1)

        assert first.log_digests.keys() == set(logs_for(required))
        assert again.logs == {}
        assert second == first


def golden_of(tpm: SoftwareTpm, pcrs: tuple[int, ...]) -> ReferenceSet:
    return reference_values.from_boot(
        "golden", "sha256", components.steps(tpm.events, "sha256", pcrs)
    )
