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
# How to read a field of a row.
Fields = Mapping[str, Callable[[Row], Any]]


class Invalid(Exception):
    """A text that is no search, or a search for what the rows do not have."""


@dataclasses.dataclass(frozen=True)
class Term:
    """A comparison. `value` is a pattern in small letters, as of a shell."""

    field: str
    is_equal: bool
    value: str

    def fits(self, row: Row, fields: Fields[Row]) -> bool:
        """Return whether a row's field is, or is not, like the value."""
        text = str(fields[self.field](row)).lower()
        return fnmatch.fnmatchcase(text, self.value) is self.is_equal


@dataclasses.dataclass(frozen=True)
class Search:
    """A search: terms as alternatives of conjunctions; without any it finds every row."""

    alternatives: Sequence[Sequence[Term]]
    order: str = ""
    descending: bool = False
    page: Optional[int] = None

    def fields(self) -> set[str]:
        """Return the fields that it reads."""
        fields = {term.field for terms in self.alternatives for term in terms}
        if self.order:
            fields.add(self.order)
        return fields

    def finds(self, row: Row, fields: Fields[Row]) -> bool:
        """Return whether a row is among what it finds."""
        if not self.alternatives:
            return True
        return any(_all_fit(terms, row, fields) for terms in self.alternatives)


def _all_fit(terms: Sequence[Term], row: Row, fields: Fields[Row]) -> bool:
    return all(term.fits(row, fields) for term in terms)


def parse(text: str) -> Search:
    """Return a search. Raises Invalid."""
    alternatives: list[list[Term]] = []
    end = 0
    if _TERM.match(text):
        end = _parse_terms(text, alternatives)
    tail = _TAIL.fullmatch(text, end)
    if tail is None:
        raise Invalid(text)
    order = (tail[1] or "").lower()
    descending = (tail[2] or "").lower() == "desc"
    page = int(tail[3]) if tail[3] else None
    return Search(alternatives, order, descending, page)


def _parse_terms(text: str, alternatives: list[list[Term]]) -> int:
    """Append what the text begins with, and return where it ends. Raises Invalid."""
    conjunction: list[Term] = []
    position = 0
    while True:
        term = _TERM.match(text, position)
        if term is None:
            raise Invalid(text)
        conjunction.append(_term(term))
        join = _JOIN.match(text, term.end())
        if join is None:
            alternatives.append(conjunction)
            return term.end()
        if join[1].lower() == "or":
            alternatives.append(conjunction)
            conjunction = []
        position = join.end()


def _term(match: re.Match[str]) -> Term:
    field, sign, value = match.groups()
    return Term(field.lower(), sign == "=", value.strip('"').lower())


def listed(query: Mapping[str, str], rows: Sequence[Row], fields: Fields[Row]) -> list[Row]:
    """Return the rows that a query asks for: filtered, ordered, cut.

    A search that is not valid finds nothing.

    Args:
        query: `search` and `max` count.
        fields: there is no search for any other.
    """
    text = query.get("search", "")
    try:
        search = parse(text)
    except Invalid:
        return []
    if not search.fields() <= set(fields):
        return []
    results = [row for row in rows if search.finds(row, fields)]
    if search.order:
        results.sort(key=fields[search.order], reverse=search.descending)
    return _page(results, search.page or 1, int(query.get("max") or -1))


def _page(rows: list[Row], page: int, size: int) -> list[Row]:
    """Return a page of that size; a negative size is that of the whole first page."""
    if page > 1:
        size = max(size, 0)
        first = (page - 1) * size
        return rows[first : first + size]
    return rows if size < 0 else rows[:size]
