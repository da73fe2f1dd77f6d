# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Loads the engine hooks: one file per event, `handle(event, broker)`.

They run with the broker's rights, so only root, or the broker's user, may write them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ovirt_tcp_plugin import errors

# The engine's own places of 2013: Backend.initialize and InitVdsOnUp; then what happens to VMs.
# Each must have its file.
NAMES = (
    "backend_initialize",
    "init_vds_on_up",
    "vm_added",
    "vm_cloned",
    "vm_from_trusted_cluster",
    "vm_imported",
    "vm_marked",
    "vm_moved",
)
# Those that are about a host, and those about a VM.
OF_HOSTS = frozenset({"init_vds_on_up"})
OF_VMS = frozenset(name for name in NAMES if name.startswith("vm_"))


@dataclasses.dataclass(frozen=True)
class HookEvent:
    """What happened.

    Attributes:
        host_id, vm_id: what it is about; both empty for an event of the whole engine.
        code, fault: what is wrong with the VM since then and was not reported before, as stable
            word and sentence; empty for nothing.
    """

    name: str
    host_id: str = ""
    vm_id: str = ""
    code: str = ""
    fault: str = ""


class HookApi(Protocol):
    """What a hook may ask the broker for."""

    def attest_in_stages(self) -> None:
        """Attest every Up host of every pool, first a small stage, then larger ones."""

    def attest_host(self, host_id: str) -> None:
        """Attest one host before it counts."""

    def warn(self, event: HookEvent) -> None:
        """Write a warning event of the VM's fault, if it has one."""


Handle = Callable[[HookEvent, HookApi], None]


def load(directory: Path) -> Mapping[str, Handle]:
    """Return the hooks by name.

    Raises:
        InvalidConfig: one is missing, can be written by others, or fails to load; a broker with
            half of its hooks does not start.
    """
    faults: list[str] = []
    hooks: dict[str, Handle] = {}
    for name in NAMES:
        path = directory / f"{name}.py"
        fault = _foreign(directory) or _foreign(path)
        if fault:
            faults.append(fault)
            continue
        try:
            hooks[name] = _handle(name, path)
        except Exception as e:  # noqa: BLE001 - a hook's code: what it raises stops the start
            faults.append(f"{path} cannot be loaded: {type(e).__name__}: {e}")
    if faults:
        raise errors.InvalidConfig(str(directory), faults)
    return hooks


def _handle(name: str, path: Path) -> Handle:
    spec = importlib.util.spec_from_file_location(f"ovirt_tcp_hook_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(module.handle):
        raise TypeError("handle is not a function")
    handle: Handle = module.handle
    return handle


def _foreign(path: Path) -> str:
    """Return why a path is not to be trusted, empty if it is.

    It must be root's or of the broker's user, and nobody else may write it.
    """
    try:
        status = path.stat()
    except OSError as e:
        return f"{path}: {e.strerror}"
    if status.st_uid not in (0, os.getuid()):
        return f"{path} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written by group or others"
    return ""
