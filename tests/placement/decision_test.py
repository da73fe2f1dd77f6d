# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The rule itself: when a verdict holds, and that the three ways to ask for it agree."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope, Verdict, VmTrust, decide, holds, passing

NEEDS_TRUST = VmTrust(marked=True)
BORN_MS, END_MS = 1_000, 2_000

# Near the two ends of the verdict, where a wrong comparison shows.
moments = st.sampled_from([BORN_MS - 1, BORN_MS, BORN_MS + 1, END_MS - 1, END_MS, END_MS + 1])
verdicts = st.one_of(
    st.none(), st.builds(Verdict, st.sampled_from(Level), st.just(BORN_MS), st.just(END_MS))
)


@pytest.mark.parametrize("level", [level for level in Level if level is not Level.TRUSTED])
def test_no_other_level_than_trusted_ever_holds(level: Level) -> None:
    assert not holds(Verdict(level, BORN_MS, END_MS), BORN_MS)


def test_a_verdict_does_not_hold_before_its_birth_nor_from_its_end_on() -> None:
    verdict = Verdict(Level.TRUSTED, BORN_MS, END_MS)
    assert not holds(verdict, BORN_MS - 1)
    assert not holds(verdict, END_MS)


def test_a_trusted_verdict_holds_from_its_birth_to_its_end() -> None:
    verdict = Verdict(Level.TRUSTED, BORN_MS, END_MS)
    assert holds(verdict, BORN_MS)
    assert holds(verdict, END_MS - 1)


@given(verdict=verdicts, now_ms=moments, scope=st.sampled_from(Scope))
def test_holds_decide_and_passing_agree(
    verdict: Optional[Verdict], now_ms: int, scope: Scope
) -> None:
    held = verdict is not None and holds(verdict, now_ms)
    assert decide(NEEDS_TRUST, scope, verdict, now_ms).allowed is held
    assert passing(NEEDS_TRUST, scope, ["host"], {"host": verdict}, now_ms) == (
        ["host"] if held else []
    )
