# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Tells a story as it goes, checks it at each step, and sums it up."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import click

POLL_S = 0.1


class StepFailed(Exception):
    """A step of the story did not hold. `str()` says which expectation."""


@dataclasses.dataclass
class StoryStep:
    """One row of the table at the end."""

    title: str
    expected: str
    held: bool = False
    seconds: float = 0.0
    seen: list[str] = dataclasses.field(default_factory=list)


class Narrator:
    """Prints sentences and keeps the steps.

    Args:
        quiet: print nothing as it goes; for `--json`.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._began = time.monotonic()
        self.steps: list[StoryStep] = []
        self.interrupted = False

    def step(self, title: str, expected: str) -> None:
        """Begin a step; it holds when the next one begins, or at `end`."""
        self.pulse()
        self.end()
        self.steps.append(StoryStep(title, expected, seconds=time.monotonic()))
        self._print(f"\n{len(self.steps)}. {title}", bold=True)

    def say(self, sentence: str) -> None:
        """Tell what happens."""
        self.pulse()
        self._print(f"   {time.monotonic() - self._began:5.1f} s  {sentence}")

    def end(self) -> None:
        """End the step that is on, as one that held."""
        if self.steps and not self.steps[-1].held:
            self.steps[-1].held = True
            self.steps[-1].seconds = time.monotonic() - self.steps[-1].seconds

    def check(self, sentence: str, holds: bool, otherwise: str = "") -> None:
        """Tell what was seen if it holds.

        Raises:
            StepFailed: it does not.
        """
        self.pulse()
        if not holds:
            seen = f"; seen: {otherwise}" if otherwise else ""
            raise StepFailed(f"expected: {sentence}{seen}")
        self.steps[-1].seen.append(sentence)
        self._print(f"   {time.monotonic() - self._began:5.1f} s  {sentence}", mark=True)

    def wait(
        self,
        sentence: str,
        holds: Callable[[], bool],
        within_s: float,
        seen: Callable[[], object],
    ) -> None:
        """Wait until it holds, then tell it.

        Raises:
            StepFailed: it does not within `within_s` seconds; `seen` tells what is there instead.
        """
        if not self._holds_within(holds, within_s):
            expected = f"expected within {within_s:.0f} s: {sentence}"
            raise StepFailed(f"{expected}; seen: {seen()}")
        self.check(sentence, True)

    def wait_silently(
        self,
        what: str,
        holds: Callable[[], bool],
        within_s: float,
        seen: Callable[[], object],
    ) -> None:
        """Wait until it holds, and say nothing.

        Raises:
            StepFailed: it does not within `within_s` seconds; `seen` tells what is there instead.
        """
        if not self._holds_within(holds, within_s):
            raise StepFailed(f"{what} took longer than {within_s:.0f} s: {seen()}")

    def _holds_within(self, holds: Callable[[], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not holds():
            self.pulse()
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True

    def pulse(self) -> None:
        """Raise KeyboardInterrupt if the story was interrupted.

        The exception of the signal itself may get lost: Python drops one that is raised in a hook
        of fork or in __del__.
        """
        if self.interrupted:
            raise KeyboardInterrupt

    def table(self) -> str:
        """Return the steps as an aligned table."""
        rows = [("STEP", "HELD", "TIME", "EXPECTED")]
        for number, step in enumerate(self.steps, 1):
            held = "yes" if step.held else "NO"
            seconds = f"{step.seconds:.1f} s" if step.held else "-"
            rows.append((f"{number} {step.title}", held, seconds, step.expected))
        title_width = max(len(row[0]) for row in rows)
        time_width = max(len(row[2]) for row in rows)
        lines: list[str] = []
        for title, held, seconds, expected in rows:
            lines.append(f"{title:{title_width}}  {held:4}  {seconds:{time_width}}  {expected}")
        return "\n".join(lines)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the steps for programs."""
        return [dataclasses.asdict(step) for step in self.steps]

    def _print(self, text: str, bold: bool = False, mark: bool = False) -> None:
        if self._quiet:
            return
        if bold:
            text = click.style(text, bold=True)
        if mark:
            text += click.style(" ok", fg="green")
        click.echo(text)
