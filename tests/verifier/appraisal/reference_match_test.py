# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8).

Only the good digests in their own order are a good boot, whatever the log calls them.
"""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import components, reference_values
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet, Value
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.appraisal import measured as measured_codec
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured
from ovirt_tcp_plugin.verifier.appraisal.reappraise import reappraise
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from tests.verifier.appraisal.boot_steps import PARTS, digest, measured, steps

REQUIRED = {"sha256": (17, 18)}


GOLDEN = reference_values.from_boot("golden", "sha256", steps())


def findings(taken: tuple[Step, ...], *sets: ReferenceSet, host: str = "host-1") -> list[Finding]:
    return list(Criteria("sha256", sets or [GOLDEN]).judge(measured(taken), host, REQUIRED))


def codes(taken: tuple[Step, ...], *sets: ReferenceSet, host: str = "host-1") -> list[str]:
    return [finding.code for finding in findings(taken, *sets, host=host)]


class TestDifferences:
    @pytest.mark.parametrize(
        "word", ["sinit", "mle", "tboot_policy", "kernel", "initrd", "sinit_key", "stm"]
    )
    def test_an_unknown_part_is_named_with_both_digests(self, word: str) -> None:
        (finding,) = findings(steps(**{word: "evil"}))
        assert (finding.code, finding.seen, finding.expected) == (
            f"{word}_differs",
            digest("evil"),
            digest(word),
        )
        assert "golden" in finding.text

    def test_a_part_of_no_known_kind_is_an_event(self) -> None:
        odd = (*steps(), Step(18, "type_4ff", digest("odd")))
        assert codes(
            (*steps(), Step(18, "type_4ff", digest("x"))),
            reference_values.from_boot("odd", "sha256", odd),
        ) == ["event_differs"]

    def test_an_added_step(self) -> None:
        taken = (*steps()[:3], Step(17, "module", digest("evil")), *steps()[3:])
        (finding,) = findings(taken)
        assert (finding.code, finding.seen) == ("event_added", digest("evil"))

    def test_a_missing_step(self) -> None:
        (finding,) = findings((*steps()[:2], *steps()[3:]))
        assert (finding.code, finding.expected) == ("event_missing", digest("tboot_policy"))

    def test_swapped_steps(self) -> None:
        taken = list(steps())
        taken[3], taken[4] = taken[4], taken[3]
        assert codes(tuple(taken)) == ["events_reordered"]

    def test_good_digests_under_lying_names(self) -> None:
        taken = [
            step._replace(component="kernel") if step.component == "mle" else step
            for step in steps()
        ]
        (finding,) = findings(tuple(taken))
        assert (finding.code, finding.expected, finding.seen) == (
            "event_relabelled",
            "mle",
            "kernel",
        )

    def test_a_good_digest_in_another_parts_place(self) -> None:
        assert codes(steps(kernel="initrd")) == ["events_reordered"]

    def test_steps_that_are_not_proven(self) -> None:
        assert codes(tuple(step for step in steps() if step.pcr == 18)) == ["steps_unproven"]

    def test_a_pcr_that_is_not_proven(self) -> None:
        found = Criteria("sha256", [GOLDEN]).judge(
            Measured({18: digest("eighteen")}, steps()), "host-1", REQUIRED
        )
        assert [finding.code for finding in found] == ["pcr_unproven"]

    def test_no_launch(self) -> None:
        found = Criteria("sha256", [GOLDEN]).judge(
            Measured({17: "ff" * 32, 18: "ff" * 32}, ()), "host-1", REQUIRED
        )
        assert [finding.code for finding in found] == ["no_launch", "no_launch"]

    def test_the_nearest_set_is_compared(self) -> None:
        other = reference_values.from_boot(
            "other", "sha256", steps(mle="a", kernel="b", initrd="c")
        )
        (finding,) = findings(steps(kernel="evil"), other, GOLDEN)
        assert finding.code == "kernel_differs"
        assert "golden" in finding.text


def as_of_before(known: ReferenceSet) -> ReferenceSet:
    """Return a set as an earlier release stored it: with other words for all its parts."""
    slots = [(pcr, f"old_{component}") for pcr, component in known.slots]
    values = [
        dataclasses.replace(value, component=f"old_{value.component}") for value in known.values
    ]
    return dataclasses.replace(known, slots=tuple(slots), values=tuple(values), vocabulary=1)


class TestVocabulary:
    """A part that we call by another word than an earlier release did is the same part."""

    def test_a_good_boot_stays_good(self) -> None:
        assert codes(steps(), as_of_before(GOLDEN)) == []

    @pytest.mark.parametrize("word", [word for _, word in PARTS])
    def test_each_changed_part_is_still_found(self, word: str) -> None:
        (finding,) = findings(steps(**{word: "evil"}), as_of_before(GOLDEN))
        assert (finding.expected, finding.seen) == (digest(word), digest("evil"))

    def test_order_and_number_still_count(self) -> None:
        older = as_of_before(GOLDEN)
        swapped = list(steps())
        swapped[3], swapped[4] = swapped[4], swapped[3]
        assert codes(tuple(swapped), older) == ["events_reordered"]
        assert codes(steps()[:-1], older) != []
        assert codes((*steps(), Step(18, "module", digest("x"))), older) == ["event_added"]

    def test_what_a_host_measured_before_the_update_is_judged_by_new_sets(self) -> None:
        older = Measured(measured(steps()).values, steps(), vocabulary=1)
        renamed = reference_values.from_boot(
            "new", "sha256", [step._replace(component=f"new_{step.component}") for step in steps()]
        )
        assert list(Criteria("sha256", [renamed]).judge(older, "host-1", REQUIRED)) == []

    def test_a_start_value_is_never_taken_for_an_event(self) -> None:
        start = Step(17, components.START, digest("start"))
        event = Step(17, "firmware", digest("start"))
        known = reference_values.from_boot("golden", "sha256", (start, *steps()), vocabulary=1)
        assert codes((start, *steps()), known) == []
        assert codes((event, *steps()), known) == ["event_relabelled"]

    def test_a_boot_of_now_is_merged_into_a_set_of_before_by_its_places(self) -> None:
        merged = as_of_before(GOLDEN).merged(
            reference_values.from_boot("golden", "sha256", steps(kernel="other"))
        )
        assert len(merged.values) == len(GOLDEN.values) + 1
        assert merged.slots == as_of_before(GOLDEN).slots
        assert codes(steps(kernel="other"), merged) == []
        assert codes(steps(), merged) == []

    def test_a_boot_with_other_steps_is_not_merged_into_a_set_of_before(self) -> None:
        with pytest.raises(errors.Conflict, match="a set of its own"):
            as_of_before(GOLDEN).merged(reference_values.from_boot("g", "sha256", steps()[:-1]))

    def test_stored_sets_and_boots_without_a_vocabulary_have_the_first(self) -> None:
        encoded = reference_values.encode(GOLDEN)
        del encoded["vocabulary"]
        assert reference_values.decode(encoded).vocabulary == 1
        assert reference_values.decode(reference_values.encode(GOLDEN)) == GOLDEN
        text = '{"bank": "sha256", "values": {}, "steps": []}'
        assert measured_codec.decode(text).vocabulary == 1


class TestSets:
    def test_half_of_two_good_boots_is_no_good_boot(self) -> None:
        one = reference_values.from_boot("one", "sha256", steps(kernel="1", stm="1"))
        two = reference_values.from_boot("two", "sha256", steps(kernel="2", stm="2"))
        assert codes(steps(kernel="1", stm="2"), one, two) == ["stm_differs"]
        assert codes(steps(kernel="1", stm="1"), one, two) == []

    def test_firmware_and_launch_may_have_sets_of_their_own(self) -> None:
        one = reference_values.from_boot(
            "one", "sha256", [step for step in steps() if step.pcr == 17]
        )
        two = reference_values.from_boot(
            "two", "sha256", [step for step in steps() if step.pcr == 18]
        )
        assert codes(steps(), one, two) == []
        assert codes(steps(), one) == ["no_reference_values"]

    def test_an_update_of_one_part_needs_one_new_value(self) -> None:
        updated = GOLDEN.with_values([Value("sha256", 17, "kernel", digest("update"))])
        assert codes(steps(kernel="update"), updated) == []
        assert codes(steps(), updated) == []
        assert codes(steps(kernel="evil"), updated) == ["kernel_differs"]

    def test_a_value_of_one_host_is_good_for_no_other(self) -> None:
        own = GOLDEN.with_values([Value("sha256", 17, "kernel", digest("own"), host_name="host-1")])
        assert codes(steps(kernel="own"), own) == []
        assert codes(steps(kernel="own"), own, host="host-2") == ["kernel_differs"]

    def test_a_set_of_some_hosts_judges_no_other(self) -> None:
        own = dataclasses.replace(GOLDEN, host_names=("host-1",))
        assert codes(steps(), own) == []
        assert codes(steps(), own, host="host-2") == ["no_reference_values"]
        assert not Criteria("sha256", [own]).chosen_for("host-2")

    def test_a_host_that_a_set_names_is_judged_by_such_sets_only(self) -> None:
        named = dataclasses.replace(GOLDEN, name="named", host_names=("host-1",))
        general = GOLDEN.with_values([Value("sha256", 17, "kernel", digest("new"))])
        assert codes(steps(kernel="new"), named, general) == ["kernel_differs"]
        assert codes(steps(kernel="new"), named, general, host="host-2") == []
        empty = ReferenceSet("empty", host_names=("host-1",))
        assert codes(steps(), empty, general) == ["no_reference_values"]

    def test_a_set_for_no_host_judges_none(self) -> None:
        assert codes(steps(), dataclasses.replace(GOLDEN, host_names=())) == ["no_reference_values"]

    def test_a_staged_value_does_not_count_until_it_is_activated(self) -> None:
        staged = GOLDEN.with_values([Value("sha256", 17, "kernel", digest("new"), staged=True)])
        assert codes(steps(kernel="new"), staged) == ["kernel_differs"]
        (identifier,) = (value.identifier for value in staged.values if value.staged)
        assert codes(steps(kernel="new"), staged.activated([identifier])) == []

    def test_a_withdrawn_value_does_not_count(self) -> None:
        (identifier,) = (value.identifier for value in GOLDEN.values if value.component == "kernel")
        assert codes(steps(), GOLDEN.withdrawn([identifier])) == ["kernel_differs"]

    def test_a_whole_pcr_may_be_good(self) -> None:
        whole = ReferenceSet("whole").with_values(
            [
                Value("sha256", 17, "", digest("seventeen")),
                Value("sha256", 18, "", digest("eighteen")),
            ]
        )
        assert codes((), whole) == []
        other = whole.withdrawn([whole.values[0].identifier]).with_values(
            [Value("sha256", 17, "", digest("x"))]
        )
        assert codes((), other) == ["pcr_differs"]

    def test_values_of_another_bank_do_not_count(self) -> None:
        sha1 = ReferenceSet("sha1").with_values([Value("sha1", 17, "", "00" * 20)])
        assert codes(steps(), sha1) == ["no_reference_values"]
        assert not Criteria("sha256", [sha1]).chosen_for("host-1")

    def test_a_second_golden_host_adds_only_what_is_new(self) -> None:
        merged = GOLDEN.merged(
            reference_values.from_boot("golden", "sha256", steps(nothing="", kernel="other"))
        )
        assert len(merged.values) == len(GOLDEN.values) + 1
        assert codes(steps(kernel="other"), merged) == []

    def test_a_golden_host_with_other_steps_needs_a_set_of_its_own(self) -> None:
        with pytest.raises(errors.Conflict, match="a set of its own"):
            GOLDEN.merged(reference_values.from_boot("golden", "sha256", steps()[:-1]))

    def test_refuses_a_value_of_a_part_that_is_not_there(self) -> None:
        with pytest.raises(errors.Conflict, match="have no module in PCR 17"):
            GOLDEN.with_values([Value("sha256", 17, "module", digest("x"))])
        with pytest.raises(errors.NotFound, match="reference value in golden"):
            GOLDEN.activated(["000000000000"])


class TestAgain:
    def test_other_findings_stay_when_the_reference_values_change(self) -> None:
        kept = [Finding(7, "log_differs", "x"), Finding(8, "kernel_differs", "y")]
        level, told = reappraise(
            "h", kept, measured(steps()), REQUIRED, Criteria("sha256", [GOLDEN])
        )
        assert (level, [finding.code for finding in told]) == (Level.UNTRUSTED, ["log_differs"])
        level, told = reappraise(
            "h", kept[1:], measured(steps()), REQUIRED, Criteria("sha256", [GOLDEN])
        )
        assert (level, told) == (Level.TRUSTED, ())

    def test_without_reference_values_nobody_is_judged(self) -> None:
        level, _ = reappraise("h", [], measured(steps()), REQUIRED, Criteria("sha256", []))
        assert level is Level.UNKNOWN

    def test_what_was_measured_survives_the_store(self) -> None:
        assert measured_codec.decode(measured_codec.encode(measured(steps()))) == measured(steps())
        for rubbish in (
            "",
            "{",
            "[]",
            "{}",
            '{"values": {"x": 1}, "steps": []}',
            '{"values": {}, "steps": [1]}',
        ):
            with pytest.raises(errors.InvalidMessage):
                measured_codec.decode(rubbish)

    def test_ten_thousand_hosts_are_judged_again_in_seconds(self) -> None:
        criteria, one = Criteria("sha256", [GOLDEN]), measured(steps())
        began = time.monotonic()
        for number in range(10_000):
            reappraise(f"host-{number}", (), one, REQUIRED, criteria)
        assert time.monotonic() - began < 10


words = st.sampled_from([word for _, word in PARTS] + ["evil", "module"])
taken_steps = st.lists(
    st.builds(Step, st.sampled_from([17, 18]), words, words.map(digest)), max_size=9
).map(tuple)


@given(taken_steps)
def test_nothing_but_the_good_digests_in_their_order_is_good(taken: tuple[Step, ...]) -> None:
    by_pcr = {pcr: [(s.component, s.digest) for s in taken if s.pcr == pcr] for pcr in (17, 18)}
    good = {pcr: [(s.component, s.digest) for s in steps() if s.pcr == pcr] for pcr in (17, 18)}
    assert (codes(taken) == []) is (by_pcr == good)


@given(st.permutations(list(steps())), st.integers(0, 6), words)
def test_a_changed_boot_is_never_good(order: list[Step], position: int, word: str) -> None:
    changed = list(order)
    changed[position] = changed[position]._replace(digest=digest(word + "!"))
    assert codes(tuple(changed)) != []


@given(
    taken_steps,
    st.lists(
        st.builds(Value, st.just("sha256"), st.just(17), words, words.map(digest)), max_size=5
    ),
)
def test_another_good_value_never_makes_a_good_host_worse(
    taken: tuple[Step, ...], values: list[Value]
) -> None:
    known = [value for value in values if (value.pcr, value.component) in GOLDEN.slots]
    before, after = codes(taken), codes(taken, GOLDEN.with_values(known))
    assert before != [] or after == []


def test_a_pcr_that_nobody_asked_for_takes_no_host_out() -> None:
    golden = reference_values.from_boot(
        "golden", "sha256", (*steps(), Step(0, "firmware", digest("firmware")))
    )
    required = {"sha256": (0, 17, 18)}
    level, _ = reappraise("h", (), measured(steps()), required, Criteria("sha256", [golden]))
    assert level is Level.UNKNOWN
