# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The description of the filter unit: never the same twice, and it tells when the engine asked."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.placement.filter_unit import DESCRIPTION, asked_at, offered_description

MOMENT = datetime.datetime(2026, 11, 30, 12, 3, 4, tzinfo=datetime.timezone.utc)
TOKEN = "0123abcd"


@pytest.mark.parametrize(
    "text",
    [
        "",
        DESCRIPTION,
        offered_description(MOMENT, TOKEN) + " ",
        offered_description(MOMENT, TOKEN).replace("2026-11-30", "2026-02-30"),
        offered_description(MOMENT, TOKEN).replace("Runs VMs", "Runs no VMs"),
    ],
)
def test_a_text_that_filterd_did_not_offer_tells_no_moment(text: str) -> None:
    assert asked_at(text) is None


def test_two_descriptions_of_one_moment_differ() -> None:
    assert offered_description(MOMENT, "00000000") != offered_description(MOMENT, "00000001")


@given(st.datetimes(min_value=datetime.datetime(1970, 1, 2), timezones=st.timezones()))
def test_a_description_tells_when_the_engine_asked_to_the_second(moment: datetime.datetime) -> None:
    told = asked_at(offered_description(moment, TOKEN))
    assert told is not None
    assert told == moment.astimezone(datetime.timezone.utc).replace(microsecond=0)


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    asked_at(text)
