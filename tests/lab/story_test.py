# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The whole chain, as the demo plays it: real processes, real quotes, the real SDK.

Each step is a test.
"""

from __future__ import annotations

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
from ovirt_tcp_plugin.lab.site import LabSite
from ovirt_tcp_plugin.lab.story.scene import SMALLEST, Scene


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with (
        sites.temporary_directory() as directory,
        LabSite(directory, SMALLEST, 6.0, (2, 6)) as site,
    ):
        yield Scene(site, Narrator(quiet=True))


@pytest.mark.parametrize("step", story.STEPS, ids=lambda step: step.__name__)
def test_every_step_holds(scene: Scene, step: Callable[[Scene], None]) -> None:
    step(scene)


def test_a_check_that_does_not_hold_fails_its_step() -> None:
    narrator = Narrator(quiet=True)
    narrator.step("title", "expected")
    with pytest.raises(StepFailed, match="expected: a is b; seen: c"):
        narrator.check("a is b", False, "c")
    with pytest.raises(StepFailed, match="expected within 0 s: a is b; seen: d"):
        narrator.wait("a is b", lambda: False, 0, lambda: "d")
    assert "NO" in narrator.table()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that has started the attestation server, with its directory in `tmp_path`."""
    command = [sys.executable, "-m", "ovirt_tcp_plugin.admin.cli", "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "attestation server answers" in line:
                    break
            yield process
        finally:
            process.kill()


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(
    tmp_path: Path, demo: subprocess.Popen[str], number: signal.Signals
) -> None:
    demo.send_signal(number)
    # Also reads what it still prints, which would fill the pipe.
    demo.communicate(timeout=20)
    assert demo.returncode == 1
    _wait_until_all_are_gone(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_killed_leaves_no_process_behind(
    tmp_path: Path, demo: subprocess.Popen[str]
) -> None:
    demo.kill()
    demo.wait()
    _wait_until_all_are_gone(tmp_path)
