# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Long lists, page by page: objects that the engine cannot show hide no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any

import ovirtsdk4
import pycurl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ovirtsdk4 import types

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.engine.pages import MAX_EXTRA_CALLS, Pages, is_fault_of_objects

FAULT = ovirtsdk4.Error("HTTP response code is 500.", code=500, fault=types.Fault(reason="Failed"))


def engine(
    count: int, bad: Collection[int]
) -> tuple[Callable[[str, int], Sequence[Any]], list[int]]:
    """Return how such an engine lists a page, and the sizes of the pages that were asked for."""
    asked: list[int] = []

    def list_page(search: str, size: int) -> Sequence[Any]:
        asked.append(size)
        match = re.fullmatch(r"sortby id asc page (\d+)", search)
        assert match is not None
        first = (int(match[1]) - 1) * size
        numbers = range(count)[first : first + size]
        if any(number in bad for number in numbers):
            raise FAULT
        return [SimpleNamespace(id=f"{number:04}") for number in numbers]

    return list_page, asked


@given(st.integers(0, 70), st.sets(st.integers(0, 69), max_size=4))
def test_all_but_the_bad_ones_are_read_and_each_once(count: int, bad: set[int]) -> None:
    list_page, asked = engine(count, bad)
    pages = Pages(list_page)
    rows = [int(row.id) for row in pages.rows(16)]
    assert rows == [number for number in range(count) if number not in bad]
    assert pages.bad_rows == len([number for number in bad if number < count])
    assert len(asked) <= count // 16 + 1 + 8 * len(bad)


def test_where_everything_fails_it_gives_up_after_some_calls() -> None:
    list_page, asked = engine(100_000, range(100_000))
    with pytest.raises(ovirtsdk4.Error):
        list(Pages(list_page).rows(2048))
    assert len(asked) <= MAX_EXTRA_CALLS + 2


@pytest.mark.parametrize(
    "error",
    [
        ovirtsdk4.ConnectionError("refused"),
        ovirtsdk4.Error("a page of the proxy instead of a document", code=503),
        errors.Unavailable("the engine's log-in", "refused"),
        ConnectionResetError(),
        pycurl.error(28, "timed out"),
        ovirtsdk4.AuthError("no", code=401, fault=types.Fault(reason="no")),
    ],
)
def test_an_engine_that_is_away_is_no_fault_of_an_object(error: Exception) -> None:
    asked: list[str] = []

    def list_page(search: str, size: int) -> Sequence[Any]:
        asked.append(search)
        raise error

    assert not is_fault_of_objects(error)
    with pytest.raises(type(error)):
        list(Pages(list_page).rows(16))
    assert len(asked) == 1


def test_a_document_that_the_sdk_cannot_read_is_one() -> None:
    assert is_fault_of_objects(ValueError("The text 'x' isn't a valid integer value."))
    assert is_fault_of_objects(Exception("Can't move to next node"))
