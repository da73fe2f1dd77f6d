# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Every figure is printed, whatever becomes of one of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench import harness
from tests.bench.harness import Benchmark, Sample


def benchmark(name: str, measure: Callable[[], Sample], most: float = 10.0) -> Benchmark:
    @contextlib.contextmanager
    def start() -> Iterator[Callable[[], Sample]]:
        yield measure

    return Benchmark(name, "ms", start, most=most, rounds=3)


def good() -> Sample:
    return Sample(5.0, 2.0)


def failing() -> Sample:
    raise AssertionError("the verdict expired meanwhile")


def test_one_that_fails_keeps_no_other_from_being_measured() -> None:
    figures = harness.measure([benchmark("bad", failing), benchmark("good", good)])
    assert not figures["bad"].met
    assert figures["good"].met
    assert (figures["good"].value, figures["good"].ratio) == (5.0, 2.5)


def test_one_that_cannot_be_set_up_keeps_no_other_from_being_measured() -> None:
    @contextlib.contextmanager
    def start() -> Iterator[Callable[[], Sample]]:
        failing()
        yield good

    broken = Benchmark("broken", "ms", start, most=10.0)
    figures = harness.measure([broken, benchmark("good", good)])
    assert figures["broken"].fault == "AssertionError: the verdict expired meanwhile"
    assert figures["good"].met


def test_what_was_measured_before_a_failure_is_shown() -> None:
    samples = iter([Sample(5.0)])
    figures = harness.measure([benchmark("bad", lambda: next(samples))])
    assert figures["bad"].value == 5.0
    assert not figures["bad"].met


def test_every_figure_is_printed_and_kept_if_a_bar_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmarks = [
        benchmark("slow", good, most=1.0),
        benchmark("bad", failing),
        benchmark("good", good),
    ]
    harness.report(harness.measure(benchmarks), tmp_path / "bench.json")
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[1:]] == ["slow", "bad", "good"]
    assert "MISSED" in table[1]
    assert "FAILED" in table[2]
    assert set(json.loads((tmp_path / "bench.json").read_text())) == {"slow", "bad", "good"}
