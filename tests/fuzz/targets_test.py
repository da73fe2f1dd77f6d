# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Every parser has a target, and the worst that 1 MiB can hold is judged in time and in bounds."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ovirt_tcp_plugin
from ovirt_tcp_plugin.messages import evidence, oat
from tests.fuzz import worst
from tests.fuzz.targets import TARGETS, Target
from tests.messages import hostile

# The longest messages that the attestation server reads: their sizes, and what makes them long.
LONGEST = {
    "evidence": (evidence.MAX_EVIDENCE_SIZE, "logs"),
    "oat_poll": (oat.MAX_POLL_SIZE, "hosts"),
}
# The parts that parsers are made of; the store's rows, whose tests spoil them one by one; and what
# setup wrote itself.
TRIED_ELSEWHERE = (
    "messages.der",
    "messages.json_fields",
    "store.references",
    "web.refusal_log",
    "store.results",
    "store.challenges",
    "state.pool_ends",
    "state.pool_watch",
    "engine.scheduling_policies",
)


def parsers() -> Iterator[Callable[..., object]]:
    """Every public function of the package that takes something untrusted, or says that it
    parses."""
    for found in pkgutil.walk_packages(ovirt_tcp_plugin.__path__, "ovirt_tcp_plugin."):
        if (
            found.name.endswith(("__main__", "migrations.env", *TRIED_ELSEWHERE))
            or ".lab" in found.name
        ):
            continue
        module = importlib.import_module(found.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            takes = next(iter(inspect.signature(function).parameters), "")
            named = takes.startswith("untrusted") or name.startswith(("parse", "decode"))
            if named and not name.startswith("_") and function.__module__ == found.name:
                yield function


def test_every_parser_has_a_target() -> None:
    tried = {target.parser for target in TARGETS.values()}
    assert [f"{one.__module__}.{one.__name__}" for one in parsers() if one not in tried] == []
    assert len(list(parsers())) > 12


@pytest.mark.parametrize("target", [pytest.param(one, id=name) for name, one in TARGETS.items()])
def test_reads_its_good_input(target: Target) -> None:
    target.call(target.good)


@pytest.mark.parametrize("target", [pytest.param(one, id=name) for name, one in TARGETS.items()])
def test_any_bytes_give_a_value_or_the_declared_error(target: Target) -> None:
    @settings(max_examples=60, deadline=None)
    @given(hostile.mutations(target.good) | st.binary(max_size=200))
    def survives(untrusted: bytes) -> None:
        hostile.survives(target.call, untrusted, target.declared)

    survives()


@pytest.mark.parametrize("target", [pytest.param(one, id=name) for name, one in TARGETS.items()])
def test_the_worst_megabyte_is_judged_in_bounds(target: Target) -> None:
    for untrusted in target.worst(target.good):
        hostile.in_bounds(target.call, untrusted, target.declared)


@pytest.mark.parametrize("name", LONGEST)
def test_the_longest_message_that_a_peer_may_send_is_judged_in_bounds(name: str) -> None:
    target = TARGETS[name]
    size, member = LONGEST[name]
    for untrusted in worst.json_object(target.good, size, member):
        hostile.in_bounds(target.call, untrusted, target.declared)
