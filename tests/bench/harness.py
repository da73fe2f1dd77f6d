# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Runs benchmarks in interleaved rounds and compares each with its bar.

The machine is never alone, so an absolute figure says little: each round measures ours and the
floor (the least that the same work takes without us) at once, and the ratio of the round counts.
Reported are medians over the rounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Optional

ROUNDS = 5
_SLICE_S = 0.05
_SLICES = 5


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one round gave. `floor` is in the same unit, None where the bar is absolute."""

    value: float
    floor: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A figure and its bar: the least or most ratio of value to floor, or the least or most that
    the value may be.

    Attributes:
        start: sets up what is measured; within the context, each call is one round.
        rounds: how many; one where a second would tell nothing new.
    """

    name: str
    unit: str
    start: Callable[[], AbstractContextManager[Callable[[], Sample]]]
    least_ratio: Optional[float] = None
    most_ratio: Optional[float] = None
    least: Optional[float] = None
    most: Optional[float] = None
    rounds: int = ROUNDS


@dataclasses.dataclass(frozen=True)
class Figure:
    """The medians of a benchmark, and whether they meet the bar."""

    value: float
    unit: str
    floor: Optional[float]
    ratio: Optional[float]
    bar: str
    met: bool


def measure(benchmarks: Sequence[Benchmark]) -> Mapping[str, Figure]:
    """Run all, their rounds interleaved."""
    samples: dict[str, list[Sample]] = {one.name: [] for one in benchmarks}
    with contextlib.ExitStack() as stack:
        rounds = [(one, stack.enter_context(one.start())) for one in benchmarks]
        for number in range(max(one.rounds for one in benchmarks)):
            for one, run in rounds:
                if number < one.rounds:
                    samples[one.name].append(run())
    return {one.name: _figure(one, samples[one.name]) for one in benchmarks}


def rates(ours: Callable[[], object], floor: Callable[[], object]) -> Sample:
    """Return how often a second each can be called, from short turns of one after the other."""
    totals = [0.0, 0.0]
    for _ in range(_SLICES):
        for position, function in enumerate((ours, floor)):
            totals[position] += _rate(function)
    return Sample(totals[0] / _SLICES, totals[1] / _SLICES)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of the values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def report(figures: Mapping[str, Figure], file: Path) -> None:
    """Print a table, and keep the figures of this run beside those of other runs."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    for name, figure in figures.items():
        kept[name] = {
            "value": figure.value,
            "unit": figure.unit,
            "floor": figure.floor,
            "ratio": figure.ratio,
        }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    print(f"{'benchmark':28} {'value':>10} {'floor':>10} {'unit':8} {'ratio':>6}  bar")
    for name, figure in figures.items():
        verdict = "" if figure.met else "  MISSED"
        print(
            f"{name:28} {_number(figure.value):>10} {_number(figure.floor):>10} {figure.unit:8} "
            f"{_number(figure.ratio):>6}  {figure.bar}{verdict}"
        )


def _figure(benchmark: Benchmark, samples: Sequence[Sample]) -> Figure:
    value = statistics.median(sample.value for sample in samples)
    floors = [sample.floor for sample in samples if sample.floor is not None]
    ratios = [sample.value / sample.floor for sample in samples if sample.floor is not None]
    floor, ratio = (
        (statistics.median(floors), statistics.median(ratios)) if floors else (None, None)
    )
    met, bar = True, []
    for name, got, least, most, unit in (
        ("ratio ", ratio, benchmark.least_ratio, benchmark.most_ratio, ""),
        ("", value, benchmark.least, benchmark.most, f" {benchmark.unit}"),
    ):
        if least is not None:
            met &= got is not None and got >= least
            bar.append(f"{name}>= {least:g}{unit}")
        if most is not None:
            met &= got is not None and got <= most
            bar.append(f"{name}<= {most:g}{unit}")
    return Figure(value, benchmark.unit, floor, ratio, ", ".join(bar), met)


def _rate(function: Callable[[], object]) -> float:
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < _SLICE_S:
        function()
        calls += 1
    return calls / (time.perf_counter() - began)


def _number(value: Optional[float]) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
