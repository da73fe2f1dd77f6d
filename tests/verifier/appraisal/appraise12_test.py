# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The numbered checks on a host with a TPM 1.2.

The two that its TPM cannot pass are named, and so is what that costs.
"""

from __future__ import annotations

import dataclasses

import pytest

from ovirt_tcp_plugin.messages import components, evidence, reference_values
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.appraisal import measured
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised, Discarded, appraise
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.quote12 import EnrolledTpm12
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from tests.verifier.software_tpm import BOOT_ID, SoftwareTpm
from tests.verifier.software_tpm12 import SoftwareTpm12, launch_events

NOW = 50_000
REQUIRED = {"sha1": (17, 18)}
GOLDEN = reference_values.from_boot(
    "golden", "sha1", components.steps(launch_events(), "sha1", (17, 18))
)


def issue(nonce: bytes = b"n" * 32, host: str = "host-1", end: int = NOW + 100) -> IssuedNonce:
    return IssuedNonce(evidence.Challenge(nonce, REQUIRED, 200), host, NOW - 100, end)


@pytest.fixture(params=["quote", "quote2"])
def tpm(request: pytest.FixtureRequest) -> SoftwareTpm12:
    made = SoftwareTpm12()
    made.form = request.param
    return made


def judge(
    tpm: SoftwareTpm12, reported: evidence.Evidence | None = None, **changes: object
) -> Discarded | Appraised:
    arguments = {
        "host": tpm.host(),
        "issued": issue(),
        "previous": None,
        "known": None,
        "required": REQUIRED,
        "criteria": Criteria("sha1", [GOLDEN]),
        "now_ms": NOW,
        **changes,
    }
    return appraise(reported or tpm.report(issue()), **arguments)  # type: ignore[arg-type]


def discarded(outcome: Discarded | Appraised) -> tuple[int, str]:
    assert isinstance(outcome, Discarded)
    return outcome.finding.check, outcome.finding.code


def untrusted(outcome: Discarded | Appraised) -> list[tuple[int, str]]:
    assert isinstance(outcome, Appraised)
    assert outcome.level is Level.UNTRUSTED
    return [(finding.check, finding.code) for finding in outcome.findings]


class TestDiscards:
    """Checks (1)-(4): nothing is learnt about the host."""

    def test_2_something_else_that_the_key_signed(self, tpm: SoftwareTpm12) -> None:
        binding = tpm.report(issue(), attest=b"\1\1\0\0\0\0\0\x79" + bytes(40))
        binding = dataclasses.replace(binding, signature=tpm.sign(binding.attest))
        assert discarded(judge(tpm, binding)) == (2, "not_a_quote")

    def test_3_quote_of_another_tpm(self, tpm: SoftwareTpm12) -> None:
        assert discarded(judge(tpm, SoftwareTpm12(1).report(issue()))) == (3, "bad_signature")

    def test_3_quote_of_a_tpm_of_the_other_family(self, tpm: SoftwareTpm12) -> None:
        other = SoftwareTpm().report(issue(), {"sha256": (17, 18)})
        assert discarded(judge(tpm, other)) == (3, "bad_signature")

    def test_3_quote_in_the_place_of_a_tpm_of_the_other_family(self, tpm: SoftwareTpm12) -> None:
        """The family is the one that enrolled: nobody chooses the weaker check by what he sends."""
        outcome = judge(tpm, host=SoftwareTpm().host())
        assert discarded(outcome) == (0, "malformed")

    @pytest.mark.parametrize(
        "issued", [None, issue(b"o" * 32)], ids=["never issued", "another nonce"]
    )
    def test_4_foreign_nonce(self, tpm: SoftwareTpm12, issued: IssuedNonce | None) -> None:
        assert discarded(judge(tpm, issued=issued)) == (4, "nonce_unknown")

    @pytest.mark.parametrize(
        "changed",
        [{"boot_id": BOOT_ID.replace("1", "2")}, {"boottime_ms": 8}],
        ids=["boot", "time"],
    )
    def test_4_boot_id_or_time_changed_after_the_quote(
        self, tpm: SoftwareTpm12, changed: dict[str, object]
    ) -> None:
        assert discarded(judge(tpm, tpm.report(issue(), **changed))) == (4, "nonce_differs")


class TestUntrusted:
    """Checks (6)-(9): the host itself has spoken."""

    def test_6_other_values_than_the_quoted_ones(self, tpm: SoftwareTpm12) -> None:
        changed = {"sha1": {17: tpm.pcrs[17], 18: bytes(20)}}
        assert (6, "values_differ") in untrusted(judge(tpm, tpm.report(issue(), pcrs=changed)))

    def test_6_values_missing(self) -> None:
        tpm = SoftwareTpm12()
        assert (6, "values_missing") in untrusted(
            judge(tpm, tpm.report(issue(), pcrs={"sha1": {17: tpm.pcrs[17]}}))
        )

    def test_6_pcr_16_as_17(self, tpm: SoftwareTpm12) -> None:
        """Anybody can bring PCR 16 to any value that a launch gives PCR 17.

        The digest covers which PCR it was.
        """
        good = dict(tpm.pcrs)
        tpm.pcrs[16], tpm.pcrs[17] = good[17], b"\xff" * 20
        relabelled = {"sha1": {17: good[17], 18: good[18]}}
        found = untrusted(judge(tpm, tpm.report(issue(), {"sha1": (16, 18)}, pcrs=relabelled)))
        assert {check for check, _ in found} & {6, 9}

    def test_7_log_of_another_boot(self, tpm: SoftwareTpm12) -> None:
        tpm.boot(launch_events(b"evil kernel"))
        forged = tpm.report(issue(), logs={"txt": SoftwareTpm12().log})
        assert (7, "log_differs") in untrusted(judge(tpm, forged))

    def test_8_other_kernel(self, tpm: SoftwareTpm12) -> None:
        tpm.boot(launch_events(b"evil kernel"))
        ((check, code),) = untrusted(judge(tpm))
        assert (check, code.endswith("_differs")) == (8, True)

    def test_8_values_of_the_other_bank_are_no_reference(self, tpm: SoftwareTpm12) -> None:
        outcome = judge(tpm, criteria=Criteria("sha256", [GOLDEN]))
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.UNKNOWN

    @pytest.mark.parametrize("quoted", [(), (17,), (16, 17, 18)])
    def test_9_other_pcrs_than_asked(self, tpm: SoftwareTpm12, quoted: tuple[int, ...]) -> None:
        assert (9, "selection_differs") in untrusted(
            judge(tpm, tpm.report(issue(), {"sha1": quoted}))
        )


class TestCannotBeChecked:
    def test_5_another_kernel_without_reset_is_not_noticed(self, tpm: SoftwareTpm12) -> None:
        before = BootCounters(BOOT_ID.replace("1", "2"), 0, 0, 0)
        outcome = judge(tpm, previous=before)
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.TRUSTED

    def test_10_the_key_alone_says_which_tpm_it_was(self, tpm: SoftwareTpm12) -> None:
        outcome = judge(tpm, host=EnrolledTpm12("host-1", SoftwareTpm12(1).ek, tpm.ak))
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.TRUSTED


def test_a_good_boot_is_trusted(tpm: SoftwareTpm12) -> None:
    outcome = judge(tpm)

    assert isinstance(outcome, Appraised)
    assert (outcome.level, outcome.findings) == (Level.TRUSTED, ())
    assert outcome.boot == BootCounters(BOOT_ID, 0, 0, 0)
    assert outcome.measured.bank == "sha1"
    assert measured.decode(measured.encode(outcome.measured)) == outcome.measured
