# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's search language, as far as lists of events, hosts and VMs need it (`SyntaxChecker`).

`type=13 or type=517 sortby time asc page 2`: terms joined by `and` and `or`, an order, a page.
Without a page the first `max` rows are given, without `max` all; a page beyond the first has no
rows without `max`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, TypeVar

_TERM = re.compile(r"\s*(\w+)\s*(!?=)\s*(\"[^\"]*\"|\S+)", re.ASCII)
_JOIN = re.compile(r"\s+(and|or)\b", re.ASCII | re.IGNORECASE)
# A page comes alone or after a direction, never after the field alone.
_TAIL = re.compile(
    r"(?:\s*sortby\s+(\w+)(?:(?:\s+(asc|desc))|(?!\s*\S)))?(?:\s*page\s+(\d+))?\s*",
    re.ASCII | re.IGNORECASE,
)

Row = TypeVar("Row")


class Invalid(Exception):
    """A text that is no search, or one for what the rows do not have."""


@dataclasses.dataclass(frozen=True)
class Search:
    """A search: terms (field, wanted, value) as alternatives of conjunctions."""

    alternatives: Sequence[Sequence[tuple[str, bool, str]]]
    order: str = ""
    descending: bool = False
    page: Optional[int] = None


def parse(text: str) -> Search:
    """Return a search. Raises Invalid."""
    alternatives: list[list[tuple[str, bool, str]]] = []
    conjunction: Optional[list[tuple[str, bool, str]]] = [] if _TERM.match(text) else None
    position = 0
    while conjunction is not None:
        term = _TERM.match(text, position)
        if term is None:
            raise Invalid(text)
        conjunction.append((term[1].lower(), term[2] == "=", term[3].strip('"').lower()))
        join = _JOIN.match(text, term.end())
        position = join.end() if join else term.end()
        if join is None or join[1].lower() == "or":
            alternatives.append(conjunction)
            conjunction = [] if join else None
    tail = _TAIL.fullmatch(text, position)
    if tail is None:
        raise Invalid(text)
    order, direction, page = tail.groups()
    return Search(
        alternatives,
        (order or "").lower(),
        (direction or "").lower() == "desc",
        int(page) if page else None,
    )


def listed(
    query: Mapping[str, str], rows: Sequence[Row], fields: Mapping[str, Callable[[Row], Any]]
) -> list[Row]:
    """Return the rows that a query asks for: filtered, ordered, cut. A search that is no good finds
    nothing.

    Args:
        query: `search` and `max` count.
        fields: how to read a field of a row; there is no search for any other.
    """
    try:
        search = _valid(query.get("search", ""), fields)
    except Invalid:
        return []
    found = [row for row in rows if _matches(search, row, fields)]
    if search.order:
        found.sort(key=fields[search.order], reverse=search.descending)
    most = int(query.get("max") or -1)
    if search.page is not None and search.page > 1:
        first = (search.page - 1) * max(most, 0)
        return found[first : first + max(most, 0)]
    return found if most < 0 else found[:most]


def _valid(text: str, fields: Mapping[str, object]) -> Search:
    search = parse(text)
    named = {field for terms in search.alternatives for field, _, _ in terms} | (
        {search.order} - {""}
    )
    if named - set(fields):
        raise Invalid(text)
    return search


def _matches(search: Search, row: Row, fields: Mapping[str, Callable[[Row], Any]]) -> bool:
    return not search.alternatives or any(
        all(
            fnmatch.fnmatchcase(str(fields[field](row)).lower(), value) is wanted
            for field, wanted, value in terms
        )
        for terms in search.alternatives
    )
