# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the gate adds to the start of a VM, beyond the start of the interpreter that every hook
pays."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench.harness import Benchmark, Sample, percentile
from tests.hooks.gated_host import VM, Host

STARTS = 100
INTERPRETER = ["/usr/bin/python3", "-I", "-c", "pass"]


@contextlib.contextmanager
def gate_p99() -> Iterator[Callable[[], Sample]]:
    """A VM that needs trust, on a host that has a good verdict; in turns with an interpreter that
    does nothing."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(Path(directory))
        gate = [str(host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py")]
        environment = {**os.environ, "vmId": VM}

        def measure() -> Sample:
            # Others may be measured between two rounds for longer than a verdict lives.
            host.sign()
            return _beyond(gate, environment)

        yield measure


def _beyond(gate: Sequence[str], environment: dict[str, str]) -> Sample:
    gates, interpreters = [], []
    for _ in range(STARTS):
        interpreters.append(_ms(INTERPRETER, environment))
        gates.append(_ms(gate, environment))
    return Sample(percentile(gates, 99) - percentile(interpreters, 50))


def _ms(command: Sequence[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True)
    return (time.perf_counter() - began) * 1000


BENCHMARKS = [Benchmark("gate_p99", "ms", gate_p99, most=50)]
