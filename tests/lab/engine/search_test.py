# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's search language: what is not understood finds nothing, and the rest what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.lab.engine.rest import search

ROWS = [("a", "up"), ("b", "down"), ("c", "up"), ("ab", "up")]
FIELDS = {"name": lambda row: row[0], "status": lambda row: row[1]}


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "name=",
        "name=a or",
        "colour=red",
        "sortby colour",
        "page x",
        "name=a; drop",
        "sortby name page 1",
    ],
)
def test_nonsense_finds_nothing(text: str) -> None:
    assert search.listed({"search": text}, ROWS, FIELDS) == []


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["a", "b", "c", "ab"]),
        ({"max": "2"}, ["a", "b"]),
        ({"max": "0"}, []),
        ({"search": "status=up and name!=c"}, ["a", "ab"]),
        ({"search": "name=b or status=up and name=c"}, ["b", "c"]),
        ({"search": "name = A*"}, ["a", "ab"]),
        ({"search": 'name="ab"'}, ["ab"]),
        ({"search": "sortby name desc"}, ["c", "b", "ab", "a"]),
        ({"search": "status=up sortby name asc page 2", "max": "2"}, ["c"]),
        ({"search": "page 2"}, []),
    ],
)
def test_a_search_finds_what_it_says(query: dict[str, str], names: list[str]) -> None:
    assert [row[0] for row in search.listed(query, ROWS, FIELDS)] == names


@given(st.text(alphabet="aoe=!\"' \n1ndrpgsbtyc*[(\\ü", max_size=40))
def test_any_text_is_a_search_or_finds_nothing(text: str) -> None:
    assert set(search.listed({"search": text}, ROWS, FIELDS)) <= set(ROWS)
