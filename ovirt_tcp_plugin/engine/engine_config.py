# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The adapter around the engine's command `engine-config` of oVirt 4.4 and 4.5.

What it knows of the command (`EngineConfigLogic`):

- Errors go to stdout with exit code 1, but a merge that changes nothing ends with 0: so every
  change is read back.
- `-s` replaces and `-m` adds.
- A key with several versions without `--cver` makes it ask on stdin, at whose end it asks for ever:
  so the version is always passed.
- A Java machine prints `?` for what the locale cannot write, and an undo would set that for good:
  so the locale is one of UTF-8.
- Changes count from the engine's next start.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from pathlib import Path

from ovirt_tcp_plugin import errors

DEFAULT_COMMAND = Path("/usr/bin/engine-config")
GENERAL = "general"
# Each run starts a Java machine and asks the database; a busy engine machine takes some seconds.
ANSWER_WITHIN_S = 60.0
# All values of a key; what is longer comes from a command that has lost its way.
MAX_OUTPUT = 1024 * 1024
_CHUNK = 64 * 1024
# So much of an output is shown in an error.
MAX_LINE = 300

_PEER = "engine-config"


class EngineConfig:
    """The engine's configuration. Remembers what it read until `forget` or a change.

    Every method raises Unavailable when the command is missing, fails, does not end in time, or
    prints what cannot be parsed.

    Args:
        answer_within_s: longest time for one run of the command, in seconds.
    """

    def __init__(
        self, command: Path = DEFAULT_COMMAND, answer_within_s: float = ANSWER_WITHIN_S
    ) -> None:
        self._command = command
        self._within_s = answer_within_s
        self._known: dict[str, dict[str, str]] = {}

    def values(self, key: str) -> dict[str, str]:
        """Return the values of a key by version: `general`, or a cluster level such as 4.8."""
        if key not in self._known:
            self._known[key] = _values(key, self._run("-g", key))
        return dict(self._known[key])

    def value(self, key: str, version: str = GENERAL) -> str:
        """Return one value. Raises NotFound when the engine has no such key or version."""
        values = self.values(key)
        if version not in values:
            raise errors.NotFound("engine-config key", f"{key} of version {version}")
        return values[version]

    def set(self, key: str, value: str, version: str = GENERAL) -> None:
        """Replace a value, and check that it is there."""
        self._change("-s", key, value, version)
        if self.value(key, version) != value:
            fault = f"it set {key} of version {version}, but then the value is another one"
            raise errors.Unavailable(_PEER, fault)

    def merge(self, key: str, value: str, version: str) -> None:
        """Add a value to those that are there already, and check that it is among them."""
        self._change("-m", key, value, version)
        if value not in self.value(key, version).split(";"):
            fault = f"it merged into {key} of version {version}, but the value is not there"
            raise errors.Unavailable(_PEER, fault)

    def forget(self) -> None:
        """Read everything again from now on."""
        self._known.clear()

    def _change(self, verb: str, key: str, value: str, version: str) -> None:
        self._known.pop(key, None)
        self._run(verb, f"{key}={value}", f"--cver={version}")

    def _run(self, *arguments: str) -> str:
        try:
            with subprocess.Popen(
                [str(self._command), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            ) as process:
                try:
                    printed, complained = _outputs(process, self._within_s)
                finally:
                    _end(process)
        except OSError as e:
            fault = f"{self._command} cannot be run ({e.strerror})"
            step = "run this on the engine machine, as root"
            raise errors.Unavailable(_PEER, f"{fault}: {step}") from e
        if process.returncode != 0:
            fault = _line(printed) or _line(complained) or f"exit code {process.returncode}"
            raise errors.Unavailable(_PEER, f"{' '.join(arguments)}: {fault}")
        try:
            return printed.decode("utf-8")
        except UnicodeDecodeError as e:
            fault = f"its answer is not UTF-8: {_line(printed)}"
            raise errors.Unavailable(_PEER, f"{' '.join(arguments)}: {fault}") from e


def _outputs(process: subprocess.Popen[bytes], within_s: float) -> tuple[bytes, bytes]:
    """Return stdout and stderr when the process has ended.

    Raises:
        Unavailable: they are too long, or it takes too long.
    """
    assert process.stdout is not None  # noqa: S101 - for mypy: both are pipes
    assert process.stderr is not None  # noqa: S101
    deadline = time.monotonic() + within_s
    late = errors.Unavailable(_PEER, f"it did not end within {within_s:.0f} s")
    printed = bytearray()
    complained = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, printed)
        selector.register(process.stderr, selectors.EVENT_READ, complained)
        while selector.get_map():
            left_s = deadline - time.monotonic()
            ready = selector.select(max(left_s, 0))
            if left_s <= 0 or not ready:
                raise late
            for key, _ in ready:
                if not _take(key):
                    selector.unregister(key.fileobj)
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired as e:
        raise late from e
    return bytes(printed), bytes(complained)


def _take(key: selectors.SelectorKey) -> bool:
    """Read what a stream has; return whether it goes on. Raises Unavailable when it is too long."""
    chunk = os.read(key.fd, _CHUNK)
    output: bytearray = key.data
    output += chunk
    if len(output) > MAX_OUTPUT:
        raise errors.Unavailable(_PEER, f"it printed more than {MAX_OUTPUT} bytes")
    return bool(chunk)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and whatever it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _values(key: str, printed: str) -> dict[str, str]:
    """Return what `-g KEY` printed, by version. Raises Unavailable.

    That is a line `KEY: VALUE version: VERSION` for each version.
    """
    pattern = re.compile(rf"{re.escape(key)}: (.*) version: (\S+)")
    values: dict[str, str] = {}
    for line in printed.rstrip("\n").split("\n"):
        match = pattern.fullmatch(line)
        if match is None:
            shown = _line(printed.encode()) or "nothing"
            raise errors.Unavailable(_PEER, f"-g {key}: it printed what is no value: {shown}")
        values[match[2]] = match[1]
    return values


def _line(output: bytes) -> str:
    """Return the begin of an output as one printable line."""
    text = output.decode("utf-8", "replace")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:MAX_LINE]
