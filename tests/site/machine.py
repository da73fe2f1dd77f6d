# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A machine with a real systemd: a container over a throw-away copy of this machine's own files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

BOOTED_WITHIN_S = 90.0
COMMAND_WITHIN_S = 120


class CannotBoot(Exception):
    """This machine cannot boot a container; the text says why."""


class Machine:
    """A booted container.

    Args:
        leader: process id of its systemd.
    """

    def __init__(self, leader: int) -> None:
        self._enter = ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]

    def run(self, command: str, check: bool = True) -> str:
        """Return what a shell's command prints, as root inside."""
        done = subprocess.run(
            [*self._enter, "/bin/sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: status {done.returncode}\n{done.stdout}")
        return done.stdout

    def property(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run(f"systemctl show -P {name} {unit}").strip()

    def wait_for(self, command: str, within_s: float) -> None:
        """Return when a command succeeds."""
        deadline = time.monotonic() + within_s
        while True:
            done = self.run(f"{command} && echo =yes=", check=False)
            if done.endswith("=yes=\n"):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s:.0f} s: {command}\n{done}")
            time.sleep(0.3)


@contextlib.contextmanager
def booted(workplace: Path, packages: Path) -> Iterator[Machine]:
    """Boot a machine, and throw it away afterwards.

    Args:
        workplace: an empty directory; nothing of it remains.
        packages: a directory that the machine sees as /srv/packages.

    Raises:
        CannotBoot: this machine cannot.
    """
    if os.geteuid() != 0:
        raise CannotBoot("only root can boot a container")
    for program in ("systemd-nspawn", "nsenter"):
        if shutil.which(program) is None:
            raise CannotBoot(f"{program} is not installed")
    with contextlib.ExitStack() as cleaning:
        root = _overlay(workplace, cleaning)
        (root / "srv" / "packages").mkdir(parents=True, exist_ok=True)
        container = subprocess.Popen(
            [
                "systemd-nspawn",
                "--register=no",
                "--keep-unit",
                "--private-network",
                "--quiet",
                "--boot",
                f"--directory={root}",
                f"--bind-ro={packages}:/srv/packages",
            ],
            stdin=subprocess.DEVNULL,
            stdout=(workplace / "console").open("wb"),
            stderr=subprocess.STDOUT,
        )
        cleaning.callback(_end, container)
        machine = Machine(_leader(container, workplace / "console"))
        machine.wait_for(
            "systemctl is-system-running | grep -E 'running|degraded'", BOOTED_WITHIN_S
        )
        yield machine


def _overlay(workplace: Path, cleaning: contextlib.ExitStack) -> Path:
    _mount(["-t", "tmpfs", "tmpfs", str(workplace)], workplace, cleaning)
    layers = {name: workplace / name for name in ("upper", "work", "root")}
    for path in layers.values():
        path.mkdir()
    options = f"lowerdir=/,upperdir={layers['upper']},workdir={layers['work']}"
    root = layers["root"]
    _mount(["-t", "overlay", "-o", options, "overlay", str(root)], root, cleaning)
    return root


def _mount(arguments: list[str], place: Path, cleaning: contextlib.ExitStack) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBoot(done.stderr.strip())
    cleaning.callback(subprocess.run, ["umount", "-l", str(place)], check=False)


def _leader(container: subprocess.Popen[bytes], console: Path) -> int:
    """Return the process id of the container's systemd."""
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    deadline = time.monotonic() + BOOTED_WITHIN_S
    while time.monotonic() < deadline and container.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        time.sleep(0.1)
    raise CannotBoot(f"the container does not start: {console.read_text()[-500:]}")


def _end(container: subprocess.Popen[bytes]) -> None:
    container.terminate()
    try:
        container.wait(30)
    except subprocess.TimeoutExpired:
        container.kill()
        container.wait()
