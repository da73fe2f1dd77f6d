# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: every figure with its bar, into build/bench.json; exit status 1 if a bar is missed.

python -m tests.bench.run [NAME...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench import (
    agents,
    appraisal,
    broker,
    filterd,
    gate,
    harness,
    locks,
    reactions,
    verifier,
)

FILE = Path(__file__).parents[2] / "build" / "bench.json"
ROOMS = (agents, appraisal, broker, filterd, gate, locks, reactions, verifier)
BENCHMARKS = {benchmark.name: benchmark for room in ROOMS for benchmark in room.BENCHMARKS}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 2
    figures = harness.measure([BENCHMARKS[name] for name in names or BENCHMARKS])
    harness.report(figures, FILE)
    return int(not all(figure.met for figure in figures.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
