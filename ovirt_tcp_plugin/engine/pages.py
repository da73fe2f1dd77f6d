# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads a long list page by page, around single objects that the engine cannot show.

Pages are ordered by id, which the engine's searches offer for VMs and hosts
(`VmConditionFieldAutoCompleter`, `VdsConditionFieldAutoCompleter`): it is unique and never changes.
There is no search for ids greater than another, so a page is cut out by its number: where an object
of an earlier page is removed meanwhile, one of a later page is missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, TypeVar

import ovirtsdk4
import pycurl

from ovirt_tcp_plugin import errors

# So many calls more than pages are made for objects that the engine cannot show.
MAX_EXTRA_CALLS = 64

T = TypeVar("T")


class Pages:
    """One reading of a list.

    Args:
        list_page: returns the rows of a page; takes a search, and how many rows a page has.

    Attributes:
        bad_rows: how many objects the engine failed to show. Of these nothing is known.
    """

    def __init__(self, list_page: Callable[[str, int], Sequence[Any]]) -> None:
        self._list_page = list_page
        self._calls_left = MAX_EXTRA_CALLS
        self.bad_rows = 0

    def rows(self, size: int) -> Iterator[Any]:
        """Yield all objects, each once.

        Args:
            size: of a page, a power of two: a page that fails is read in two halves.
        """
        known: set[str] = set()
        for number in itertools.count(1):
            rows = self._page(number, size)
            for row in rows:
                if row is not None and row.id not in known:
                    known.add(row.id)
                    yield row
            if len(rows) < size:
                return

    def _page(self, number: int, size: int) -> list[Any]:
        """Return the rows of a page, None for one that cannot be shown."""
        try:
            return list(self._list_page(f"sortby id asc page {number}", size))
        except Exception as e:
            if not is_fault_of_objects(e) or self._calls_left < 1:
                raise
        if size == 1:
            self.bad_rows += 1
            return [None]
        self._calls_left -= 2
        half = size // 2
        rows = self._page(2 * number - 1, half)
        if len(rows) == half:
            rows += self._page(2 * number, half)
        return rows


def read_or_none(read: Callable[[], T]) -> Optional[T]:
    """Return what `read` returns, None if the engine fails at what it was asked to show."""
    try:
        return read()
    except Exception as e:
        if not is_fault_of_objects(e):
            raise
        return None


def is_fault_of_objects(error: Exception) -> bool:
    """Return whether the engine is there, and fails at what it was asked to show.

    Its own faults come as documents; what a proxy says of an engine that is down does not. The
    SDK's readers raise anything, also `Exception` itself, on a document that is not what it should
    be.
    """
    if isinstance(error, (errors.Error, OSError, pycurl.error)):
        # Of the connection, or of our own log-in.
        return False
    if not isinstance(error, ovirtsdk4.Error):
        return True
    return error.fault is not None and (error.code or 0) >= 500
