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
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Optional

log = logging.getLogger("bench")

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
    """The medians of a benchmark, and whether they meet the bar.

    Attributes:
        value: None where no round could be measured.
        fault: why a round could not be; it has no more, and does not meet its bar.
    """

    value: Optional[float]
    unit: str
    floor: Optional[float]
    ratio: Optional[float]
    bar: str
    met: bool
    fault: str = ""


class _Run:
    """A benchmark, and what its rounds gave. One that fails keeps no other from being measured."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.samples: list[Sample] = []
        self.fault = ""
        self._measure: Optional[Callable[[], Sample]] = None

    def start(self, stack: contextlib.ExitStack) -> None:
        """Set up what is measured."""
        with self._failing():
            self._measure = stack.enter_context(self.benchmark.start())

    def round(self, number: int) -> None:
        """Measure once, if it has so many rounds."""
        if self._measure is None or self.fault or number >= self.benchmark.rounds:
            return
        with self._failing():
            self.samples.append(self._measure())

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as e:
            log.exception("%s failed", self.benchmark.name)
            self.fault = f"{type(e).__name__}: {e}".splitlines()[0]


def measure(benchmarks: Sequence[Benchmark]) -> Mapping[str, Figure]:
    """Run all, their rounds interleaved."""
    runs = [_Run(benchmark) for benchmark in benchmarks]
    with contextlib.ExitStack() as stack:
        for run in runs:
            run.start(stack)
        for number in range(max(benchmark.rounds for benchmark in benchmarks)):
            for run in runs:
                run.round(number)
    return {run.benchmark.name: _figure(run) for run in runs}


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
        if figure.fault:
            verdict = f"  FAILED {figure.fault}"
        print(
            f"{name:28} {_number(figure.value):>10} {_number(figure.floor):>10} {figure.unit:8} "
            f"{_number(figure.ratio):>6}  {figure.bar}{verdict}"
        )


def _figure(run: _Run) -> Figure:
    benchmark = run.benchmark
    samples = run.samples
    value = _median([sample.value for sample in samples])
    floor = _median([sample.floor for sample in samples if sample.floor is not None])
    ratio = _median([sample.value / sample.floor for sample in samples if sample.floor is not None])
    met, bar = not run.fault, []
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
    return Figure(value, benchmark.unit, floor, ratio, ", ".join(bar), met, run.fault)


def _median(values: Sequence[float]) -> Optional[float]:
    return statistics.median(values) if values else None


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
