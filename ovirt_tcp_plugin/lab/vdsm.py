# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Runs hooks as a host's VDSM does.

Source: vdsm's `lib/vdsm/common/hooks.py`. Executable files of the point's directory run one after
another, sorted by path; they find the domain (or a JSON document) in a file, which they may change,
and everything else in the environment. Exit status 2 ends the row; at points that raise, every
status but 0 fails the operation, with what the last script wrote to stderr. Nothing bounds the
time.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

ERROR = 1
ERROR_AND_STOP = 2

GATE_POINTS = ("before_vm_start", "before_vm_migrate_destination", "before_vm_dehibernate")
# Points at which a failure fails the operation.
RAISING = frozenset(GATE_POINTS)


@dataclasses.dataclass(frozen=True)
class HookOutcome:
    """What the hooks of a point did.

    Attributes:
        document: as they left it.
        failure: why the operation fails, empty if it does not.
        statuses: the exit status of each script.
    """

    document: str
    failure: str
    statuses: tuple[int, ...]


def run_hooks(
    hooks: Path,
    point: str,
    document: str = "",
    vm_id: str = "",
    properties: Optional[Mapping[str, str]] = None,
    kind: str = "_hook_domxml",
) -> HookOutcome:
    """Run the hooks of one point.

    Args:
        hooks: directory with a directory for each point.
        document: domain XML, or JSON.
        properties: the VM's custom properties.
        kind: name of the variable with the document's file: `_hook_domxml` or `_hook_json`.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "document"
        file.write_text(document)
        environment = {**os.environ, **(properties or {}), kind: str(file)}
        if vm_id:
            environment["vmId"] = vm_id
        failure, statuses = _run_in_order(hooks / point, environment)
        changed = file.read_text()
    if point not in RAISING:
        failure = ""
    return HookOutcome(changed, failure, tuple(statuses))


def _run_in_order(directory: Path, environment: Mapping[str, str]) -> tuple[str, list[int]]:
    """Return the text of the last script since the first that failed, and all exit statuses."""
    failure = ""
    statuses: list[int] = []
    for script in sorted(directory.glob("*")):
        if not os.access(script, os.X_OK):
            continue  # silently, as VDSM does
        status, text = _run(script, environment)
        statuses.append(status)
        if any(statuses):
            failure = text or f"{script.name}: status {status}"
        if status == ERROR_AND_STOP:
            break
    return failure, statuses


def _run(script: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Return a script's exit status, and what it wrote to stderr."""
    process = subprocess.run(
        [script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        check=False,
    )
    return process.returncode, process.stderr.decode("utf-8", "replace").strip()


def install(script: Path, hooks: Path, point: str, **places: object) -> Path:
    """Copy a hook to where `run_hooks` looks, with other values for its constants.

    A lab has no /etc.
    """
    (hooks / point).mkdir(parents=True, exist_ok=True)
    source = script.read_text(encoding="utf-8")
    for name, value in places.items():
        constant = re.search(rf"(?m)^{name} = .*$", source)
        if constant is None:
            raise ValueError(f"{script.name} has no constant {name}")
        source = source.replace(constant[0], f"{name} = {value!r}")
    installed = hooks / point / script.name
    installed.write_text(source, encoding="utf-8")
    shutil.copymode(script, installed)
    return installed
