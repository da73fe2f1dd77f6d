# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the chaos campaign calls a wrong placement, on made-up records."""

from __future__ import annotations

import collections

import pytest

from tests.broker.oracle import NOTED_S, WALL_S, Oracle, Records
from tests.broker.units import Absences

LIFE_S = 8.0
AT = 100.0
NAMES = ("broker", "filterd", "verifier", "answers", "engine", "wall")


@pytest.fixture
def records() -> Records:
    return Records(
        LIFE_S,
        answers=collections.defaultdict(list),
        came_up=collections.defaultdict(list),
        walls=[(10.0, frozenset({"h1"}))],
        away={name: Absences() for name in NAMES},
    )


def judge(records: Records, external: str = "kept") -> list[str]:
    """Return what is wrong with a VM that comes to h1."""
    oracle = Oracle(records)
    hosts = ["h1", "h2"]
    entry = {
        "time": AT,
        "purpose": "start",
        "vm": "a VM's id",
        "candidates": hosts,
        "internal": hosts[:1],
        "external": external,
        "chosen": "h1",
    }
    oracle.judge(entry, "vm7")
    return oracle.wrong


def ended(records: Records, ago_s: float) -> None:
    """Have the verdict of h1 end before the VM comes to it."""
    records.answers["h1"].append((AT - ago_s - LIFE_S, "trusted"))


def was_away(records: Records, name: str, first: float, last: float) -> None:
    """Have something be away from so many seconds before the VM comes to so many before."""
    records.away[name].spans.append((AT - first, AT - last))


def test_a_host_that_was_never_trusted(records: Records) -> None:
    (text,) = judge(records)
    assert text.startswith("start of vm7 to h1 at 100.00: it was never trusted.")


def test_an_untrusted_host_behind_the_wall_says_what_was_dead(records: Records) -> None:
    was_away(records, "filterd", 20, 0)
    was_away(records, "verifier", 7, 6)
    records.answers["h1"] += [(AT - 5, "trusted"), (AT - 4, "untrusted")]
    (text,) = judge(records)
    assert "it was untrusted for 4.00 s" in text
    assert "dead then: filterd; within 8 s before: filterd, verifier" in text
    assert "answers about the host: trusted -5.00, untrusted -4.00" in text
    assert "in the wall: in -90.00" in text


def test_an_untrusted_host_though_no_server_answers_any_more(records: Records) -> None:
    records.answers["h1"] += [(AT - 5, "trusted"), (AT - 4, "untrusted")]
    was_away(records, "verifier", 3.5, 0)
    assert judge(records)


def test_a_host_that_came_up_since_it_attested_well(records: Records) -> None:
    records.answers["h1"].append((AT - 5, "trusted"))
    records.came_up["h1"].append(AT - 4)
    (text,) = judge(records)
    assert "it came Up 4.00 s before, and did not attest well since" in text


def test_a_verdict_that_ended_while_servers_answer(records: Records) -> None:
    ended(records, WALL_S + 0.1)
    (text,) = judge(records)
    assert "its verdict ended 3.10 s before" in text


def test_a_verdict_that_ended_for_the_filter_though_no_server_answers(records: Records) -> None:
    ended(records, NOTED_S + 0.1)
    was_away(records, "verifier", 5, 0)
    assert judge(records, external="answer")


def test_a_verdict_that_ended_a_life_ago_though_no_server_answers(records: Records) -> None:
    ended(records, LIFE_S + WALL_S + 0.1)
    was_away(records, "verifier", 20, 0)
    assert judge(records)


@pytest.mark.parametrize("name", ["verifier", "answers"])
def test_a_wall_that_stands_while_no_server_answers_is_right(records: Records, name: str) -> None:
    ended(records, WALL_S + 1)
    was_away(records, name, 5, 0.5)
    assert judge(records) == []


@pytest.mark.parametrize("name", ["broker", "engine", "wall"])
def test_nothing_is_wrong_with_neither_filter_nor_broker(records: Records, name: str) -> None:
    was_away(records, name, 2, 1)
    assert judge(records) == []
