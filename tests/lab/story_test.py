# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The whole chain, as the demo plays it: real processes, real quotes, the real SDK.

Each step is a test.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab import site as sites
from ovirt_tcp_plugin.lab import story
from ovirt_tcp_plugin.lab.narrator import Narrator, StepFailed
from ovirt_tcp_plugin.lab.site import LabSite, StageSizes
from ovirt_tcp_plugin.lab.story.scene import SMALLEST, Scene


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with (
        sites.temporary_directory() as directory,
        LabSite(directory, SMALLEST, 6.0, StageSizes(first=2, later=6)) as site,
    ):
        yield Scene(site, Narrator(quiet=True))


@pytest.fixture(scope="module")
def steps_that_held() -> set[Callable[[Scene], None]]:
    return set()


@pytest.mark.parametrize("step", story.STEPS, ids=lambda step: step.__name__)
def test_every_step_holds(
    scene: Scene,
    steps_that_held: set[Callable[[Scene], None]],
    step: Callable[[Scene], None],
) -> None:
    for earlier in story.STEPS[: story.STEPS.index(step)]:
        if earlier not in steps_that_held:
            pytest.skip(f"{earlier.__name__} did not hold, and this step needs it")
    step(scene)
    steps_that_held.add(step)


def test_a_check_that_does_not_hold_fails_its_step() -> None:
    narrator = Narrator(quiet=True)
    narrator.step("title", "expected")
    with pytest.raises(StepFailed, match="expected: a is b; seen: c"):
        narrator.check("a is b", False, "c")
    with pytest.raises(StepFailed, match="expected within 0 s: a is b; seen: d"):
        narrator.wait("a is b", lambda: False, 0, lambda: "d")
    assert "NO" in narrator.table()


@contextlib.contextmanager
def demo_until(sentence: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a demo that has said that, with everything of it in a directory."""
    command = [sys.executable, "-m", "ovirt_tcp_plugin.admin.cli", "demo"]
    environment = {**os.environ, "TMPDIR": str(directory)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        try:
            assert demo.stdout is not None
            for line in demo.stdout:
                if sentence in line:
                    break
            yield demo
        finally:
            demo.kill()


def _lab_processes() -> list[str]:
    listing = subprocess.run(
        ["pgrep", "-fa", "ovirt_tcp_plugin|swtpm"], capture_output=True, text=True, check=False
    )
    return listing.stdout.splitlines()


def _wait_until_all_are_gone(directory: Path) -> None:
    """A child that was being started dies with the demo: at once, but not in the same instant."""
    deadline = time.monotonic() + 5
    while left := [line for line in _lab_processes() if str(directory) in line]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(signal.SIGINT, "the attestation server answers"), (signal.SIGTERM, "booting")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_demo_that_is_interrupted_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, sentence: str
) -> None:
    with demo_until(sentence, tmp_path) as demo:
        demo.send_signal(number)
        # Also reads what it still prints, which would fill the pipe.
        demo.communicate(timeout=20)
        assert demo.returncode == 1
    _wait_until_all_are_gone(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    with demo_until("booting", tmp_path) as demo:
        demo.kill()
        demo.wait()
    _wait_until_all_are_gone(tmp_path)
