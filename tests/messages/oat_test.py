# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""PollHosts as the releases of OpenAttestation and its three known clients spell it."""

from __future__ import annotations

import contextlib
import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import oat

UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    "body",
    [
        b'{"hosts":]}',
        b"{}",
        b'{"hosts":{}}',
        b'{"hosts":[null]}',
        b'{"hosts":["a"],"timeThreshold":"soon"}',
        b'{"hosts":["a"],"timeThreshold":true}',
        b'{"hosts":["a"],"timeThreshold":1e400}',
        json.dumps({"hosts": ["a"] * 10_001}).encode(),
        b'{"hosts":["a",1]}',
        b'{"hosts":["a"],"PCRmask":"0x1"}',
        b'{"hosts":["a"],"PCRmask":"1000000"}',
        b'{"hosts":["a"],"PCRmask":7}',
        b'"hosts"',
    ],
)
def test_refuses_a_question_that_is_none(body: bytes) -> None:
    with pytest.raises(errors.InvalidMessage):
        oat.decode_poll(body)


@given(st.binary(max_size=500))
def test_any_bytes_give_a_question_or_the_one_error(body: bytes) -> None:
    with contextlib.suppress(errors.InvalidMessage):
        oat.decode_poll(body)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(ANY_JSON)
def test_any_json_gives_an_answer_or_the_one_error(value: object) -> None:
    with contextlib.suppress(errors.InvalidMessage):
        oat.decode_answer(json.dumps({"hosts": value}).encode())


@pytest.mark.parametrize(
    "vtime",
    [None, 5, "", "yesterday", "2012-10-15T22:36:58.836", "Mon Oct 15 22:36:58 2012", "9" * 41],
)
def test_a_moment_without_zone_or_form_is_no_moment(vtime: object) -> None:
    assert oat.parse_vtime(vtime) is None


@pytest.mark.parametrize(
    ("vtime", "moment"),
    [
        ("2012-10-15T22:36:58.836+08:00", datetime.datetime(2012, 10, 15, 14, 36, 58, 836000, UTC)),
        ("2016-02-29T22:29:26.365+0000", datetime.datetime(2016, 2, 29, 22, 29, 26, 365000, UTC)),
        ("2016-02-29T22:29:26Z", datetime.datetime(2016, 2, 29, 22, 29, 26, 0, UTC)),
    ],
)
def test_reads_the_moments_of_1_x_and_2_x(vtime: str, moment: datetime.datetime) -> None:
    assert oat.parse_vtime(vtime) == moment


@pytest.mark.parametrize(
    ("body", "poll"),
    [
        (b'{"hosts":["a","b"],"count":2}', oat.Poll(("a", "b"))),
        (b'{"hosts":"a"}', oat.Poll(("a",))),
        (b'{"hosts":["a"],"timeThreshold":5000}', oat.Poll(("a",), 5000)),
        (b'{"hosts":["a"],"timeThreshold":"5000"}', oat.Poll(("a",), 5000)),
        (b'{"hosts":["a"],"timeThreshold":0}', oat.Poll(("a",))),
        (b'{"hosts":["a"],"PCRmask":"060001"}', oat.Poll(("a",), None, (0, 17, 18))),
        (b'{"hosts":["a"],"PCRmask":""}', oat.Poll(("a",))),
    ],
    ids=[
        "Nova",
        "one text",
        "threshold",
        "threshold as text",
        "0 counts as absent",
        "right-most bit is PCR 0",
        "no mask",
    ],
)
def test_reads_the_questions_of_known_clients(body: bytes, poll: oat.Poll) -> None:
    assert oat.decode_poll(body) == poll


def test_a_name_that_is_none_does_not_fail_the_others() -> None:
    assert oat.decode_poll(b'{"hosts":["","a","\\ud800"]}').hosts == ("", "a", "\ud800")
    assert len(oat.decode_poll(json.dumps({"hosts": ["a", "x" * 100_000]}).encode()).hosts) == 2


def test_values_are_an_array_even_of_one() -> None:
    (host,) = oat.encode_answer([oat.PolledHost("a", "trusted", None, ((17, "ab"),))])["hosts"]
    assert host["pcr_values"] == [{"number": "17", "value": "ab"}]


def test_reads_an_array_of_one_that_jersey_wrote_as_an_object() -> None:
    body = b'{"hosts":{"host_name":"a","trust_lvl":"TRUSTED","vtime":"2016-02-29T22:29:26Z"}}'
    (host,) = oat.decode_answer(body)
    assert (host.host_name, host.trust_lvl) == ("a", "trusted")


def test_unknown_members_of_an_answer_are_passed_over() -> None:
    entry = {
        "host_name": "a",
        "trust_lvl": "trusted",
        "pcr_values": [{"number": 1}],
        "new": {"deep": [1, 2]},
    }
    (host,) = oat.decode_answer(json.dumps({"hosts": [entry], "count": 1, "more": None}).encode())
    assert (host.host_name, host.trust_lvl) == ("a", "trusted")


def test_entries_that_speak_of_nobody_are_left_out() -> None:
    entries = [
        None,
        5,
        {},
        {"host_name": "a"},
        {"trust_lvl": "trusted"},
        {"host_name": "x" * 300, "trust_lvl": "trusted"},
    ]
    assert oat.decode_answer(json.dumps({"hosts": entries}).encode()) == ()


def test_a_question_and_an_answer_read_back_as_they_were() -> None:
    poll = oat.Poll(("a", "b"), 7)
    assert oat.decode_poll(json.dumps(oat.encode_poll(poll)).encode()) == poll
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    hosts = (oat.PolledHost("a", "trusted", moment), oat.PolledHost("b", "unknown", None))
    assert oat.decode_answer(json.dumps(oat.encode_answer(hosts)).encode()) == hosts
