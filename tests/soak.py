# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Long campaigns: whole under `make soak`, the hundredth part of them in `make test`.

A test of a campaign bears `pytest.mark.soak`. What it does at random follows from the seed that
pytest prints at its start; `make soak SEED=...` does the same again.
"""

from __future__ import annotations

import os
import random
import secrets

WHOLE = os.environ.get("SOAK") == "1"
SEED = int(os.environ.get("SEED") or secrets.randbits(32))
# The processes among which pytest-xdist spreads the tests have to do the same.
os.environ["SEED"] = str(SEED)


def part(whole: int, least: int = 1) -> int:
    """Return how much of a campaign of `whole` steps to do now."""
    return whole if WHOLE else max(whole // 100, least)


def randomness(name: str) -> random.Random:
    """Return the random numbers of one campaign."""
    return random.Random(f"{SEED} {name}")
