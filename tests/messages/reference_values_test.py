# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Any value is a set of reference values or one declared error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields, reference_values
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet, Value

VALUE = Value("sha256", 17, "kernel", "ab" * 32, "host-1", True, "because")
SET = ReferenceSet("el9:1", ((17, "kernel"), (18, "")), (VALUE,), ("host-1",))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_a_set_survives_its_codec() -> None:
    assert reference_values.decode(reference_values.encode(SET)) == SET


def test_the_most_values_that_sets_may_hold_are_read() -> None:
    """The bound on the number of values in a JSON text leaves room for what is densest."""
    steps = [Step(17, f"m{number}", "ab" * 20) for number in range(reference_values.MAX_SLOTS)]
    golden = reference_values.from_boot("a", "sha1", steps)
    whole_pcrs = [
        Value("sha1", 17, "", f"{number:040x}") for number in range(reference_values.MAX_VALUES)
    ]
    of_values = ReferenceSet("b").with_values(whole_pcrs)
    names = tuple(f"h{number}" for number in range(reference_values.MAX_HOSTS))
    of_hosts = ReferenceSet("c", host_names=names)

    for known in (golden, of_values, of_hosts):
        encoded = json.dumps({"reference_values": [reference_values.encode(known)] * 4}).encode()
        parsed = json_fields.parse_members(encoded, "answer", len(encoded))
        (*_, last) = json_fields.items(parsed, "reference_values", 4)
        assert reference_values.decode(last) == known


def test_a_set_for_all_hosts_is_not_one_for_none() -> None:
    for names in (None, ()):
        assert (
            reference_values.decode(
                reference_values.encode(ReferenceSet("el9", host_names=names))
            ).host_names
            == names
        )


def test_a_set_is_for_a_host_once_and_for_so_many_at_most() -> None:
    one = ReferenceSet("el9").with_host("host-1")
    assert one.with_host("host-1").host_names == ("host-1",)
    assert one.without_host("host-1").host_names == ()
    full = ReferenceSet(
        "el9", host_names=tuple(f"host-{number}" for number in range(reference_values.MAX_HOSTS))
    )
    with pytest.raises(errors.Conflict, match="more than"):
        full.with_host("one-more")


@pytest.mark.parametrize(
    ("member", "wrong"),
    [
        ("name", ""),
        ("name", "a/b"),
        ("name", "x" * 200),
        ("slots", [[17]]),
        ("slots", [[99, "kernel"]]),
        ("slots", [[17, "KERNEL"]]),
        ("slots", [[17, "kernel"], [17, "kernel"]]),
        ("values", {}),
        ("values", [1]),
        ("host_names", [1]),
        ("host_names", ["x" * 300]),
        ("more", 1),
    ],
)
def test_refuses_a_set_with_a_wrong_member(member: str, wrong: object) -> None:
    with pytest.raises(errors.InvalidMessage):
        reference_values.decode({**reference_values.encode(SET), member: wrong})


@pytest.mark.parametrize(
    ("member", "wrong"),
    [
        ("bank", "md5"),
        ("pcr", 24),
        ("pcr", True),
        ("digest", "AB" * 32),
        ("digest", "ab" * 20),
        ("component", "x" * 65),
        ("staged", "yes"),
        ("more", 1),
    ],
)
def test_refuses_a_value_with_a_wrong_member(member: str, wrong: object) -> None:
    with pytest.raises(errors.InvalidMessage):
        reference_values.decode_value({**reference_values.encode_value(VALUE), member: wrong})


@given(anything)
def test_anything_is_a_set_or_refused(untrusted: Any) -> None:
    for decode in (reference_values.decode, reference_values.decode_value):
        try:
            decode(untrusted)
        except errors.InvalidMessage:
            continue


@given(st.sampled_from(["name", "slots", "values", "host_names"]), anything)
def test_a_set_with_anything_in_one_member_is_a_set_or_refused(member: str, inner: Any) -> None:
    try:
        reference_values.decode({**reference_values.encode(SET), member: inner})
    except errors.InvalidMessage:
        return


def test_the_same_statement_has_the_same_identifier() -> None:
    again = Value("sha256", 17, "kernel", "ab" * 32, "host-1", False, "other note")
    assert again.identifier == VALUE.identifier
    assert Value("sha256", 17, "kernel", "ab" * 32).identifier != VALUE.identifier
