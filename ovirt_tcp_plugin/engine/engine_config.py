# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The one adapter around the engine's command `engine-config` (`EngineConfigLogic`, oVirt 4.4 and 4.5).

What it knows of the command: errors go to stdout with exit code 1, but a merge that changes nothing ends with 0, so every
change is read back; `-s` replaces and `-m` adds; a key with several versions without `--cver` makes it ask on stdin, at
whose end it asks for ever, so the version is always given; a Java machine prints `?` for what the locale cannot write, and
that would be set for good by an undo, so the locale is one of UTF-8; changes count from the engine's next start.
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
# Each run starts a Java machine and asks the database; a busy engine machine takes some seconds for it.
ANSWER_WITHIN_S = 60.0
# All values of a key; what is longer comes from a command that has lost its way.
MAX_OUTPUT = 1024 * 1024
_CHUNK = 64 * 1024

_PEER = "engine-config"


class EngineConfig:
    """The engine's configuration. Remembers what it read until `forget` or a change.

    Every method raises Unavailable when the command is missing, fails, does not end in time, or prints what is no answer.
    """

    def __init__(self, command: Path = DEFAULT_COMMAND, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._command, self._within = command, answer_within_s
        self._known: dict[str, dict[str, str]] = {}

    def values(self, key: str) -> dict[str, str]:
        """Return the values of a key by version; that is `general` or a cluster level, such as 4.8."""
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
        """Replace a value, and see that it is there."""
        self._change("-s", key, value, version)
        if self.value(key, version) != value:
            raise errors.Unavailable(_PEER, f"it set {key} of version {version}, but the value is another one afterwards")

    def merge(self, key: str, value: str, version: str) -> None:
        """Add a value to those that are there already, and see that it is among them."""
        self._change("-m", key, value, version)
        if value not in self.value(key, version).split(";"):
            raise errors.Unavailable(_PEER, f"it merged into {key} of version {version}, but the value is not there")

    def forget(self) -> None:
        """Read everything anew from now on."""
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
                    printed, complained = _outputs(process, self._within)
                finally:
                    _end(process)
        except OSError as e:
            hint = "run this on the engine machine, as root"
            raise errors.Unavailable(_PEER, f"{self._command} cannot be run ({e.strerror}): {hint}") from e
        if process.returncode != 0:
            said = _line(printed) or _line(complained) or f"exit code {process.returncode}"
            raise errors.Unavailable(_PEER, f"{' '.join(arguments)}: {said}")
        try:
            return printed.decode("utf-8")
        except UnicodeDecodeError as e:
            raise errors.Unavailable(_PEER, f"{' '.join(arguments)}: its answer is not UTF-8: {_line(printed)}") from e


def _outputs(process: subprocess.Popen[bytes], within_s: float) -> tuple[bytes, bytes]:
    """Return stdout and stderr when the process has ended. Raises Unavailable when they are too long or too late."""
    assert process.stdout is not None  # noqa: S101 - for mypy: both are pipes
    assert process.stderr is not None  # noqa: S101
    streams, deadline = (process.stdout, process.stderr), time.monotonic() + within_s
    late = errors.Unavailable(_PEER, f"it did not end within {within_s:.0f} s")
    collected = {stream.fileno(): bytearray() for stream in streams}
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            ready = selector.select(max(left, 0))
            if left <= 0 or not ready:
                raise late
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                collected[key.fd] += chunk
                if len(collected[key.fd]) > MAX_OUTPUT:
                    raise errors.Unavailable(_PEER, f"it printed more than {MAX_OUTPUT} bytes")
                if not chunk:
                    selector.unregister(key.fileobj)
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired as e:
        raise late from e
    printed, complained = (bytes(collected[stream.fileno()]) for stream in streams)
    return printed, complained


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and whatever it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _values(key: str, printed: str) -> dict[str, str]:
    """Return what `-g KEY` printed: a line `KEY: VALUE version: VERSION` for each version. Raises Unavailable."""
    line = re.compile(rf"{re.escape(key)}: (.*) version: (\S+)")
    matches = [line.fullmatch(one) for one in printed.rstrip("\n").split("\n")]
    found = {match[2]: match[1] for match in matches if match is not None}
    if not found or len(found) != len(matches):
        raise errors.Unavailable(_PEER, f"-g {key}: it printed what is no value: {_line(printed.encode()) or 'nothing'}")
    return found


def _line(output: bytes) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in output.decode("utf-8", "replace")).split())[:300]
