# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The runner of hooks behaves as VDSM's does; facts by vdsm's own `lib/vdsm/common/hooks.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab.vdsm import run_hooks

Add = Callable[..., None]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    def add(name: str, script: str, point: str = "before_vm_start", mode: int = 0o755) -> None:
        (tmp_path / point).mkdir(exist_ok=True)
        (tmp_path / point / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / point / name).chmod(mode)

    return add


def test_status_2_ends_the_row_and_fails(add: Add, tmp_path: Path) -> None:
    add("10_no", "echo no >&2; exit 2")
    add("20_never", "echo never >&2; exit 0")

    outcome = run_hooks(tmp_path, "before_vm_start")

    assert (outcome.statuses, outcome.failure) == ((2,), "no")


def test_status_1_fails_too_with_the_words_of_the_last_script(add: Add, tmp_path: Path) -> None:
    add("10_no", "echo no >&2; exit 1")
    add("20_last", "echo last >&2; exit 0")

    outcome = run_hooks(tmp_path, "before_vm_start")

    assert (outcome.statuses, outcome.failure) == ((1, 0), "last")


def test_elsewhere_a_failure_is_only_logged_and_the_change_counts(add: Add, tmp_path: Path) -> None:
    add("10_no", 'echo \'{"a": 1}\' > "$_hook_json"; exit 2', "after_get_caps")

    outcome = run_hooks(tmp_path, "after_get_caps", "{}", kind="_hook_json")

    assert (outcome.failure, outcome.document) == ("", '{"a": 1}\n')


def test_what_cannot_be_executed_is_skipped_silently(add: Add, tmp_path: Path) -> None:
    add("10_no", "exit 2", mode=0o644)

    assert run_hooks(tmp_path, "before_vm_start").statuses == ()
    assert run_hooks(tmp_path, "no_such_point").statuses == ()


def test_scripts_run_in_order_on_one_document_with_properties_and_vm_in_the_environment(
    add: Add, tmp_path: Path
) -> None:
    add("20_second", 'echo "second $vmId" >> "$_hook_domxml"')
    add("10_first", 'echo "first $mark" >> "$_hook_domxml"; [ $# = 0 ] && ! read -r line')

    outcome = run_hooks(
        tmp_path, "before_vm_start", "<domain/>\n", "vm-1", {"mark": "true", "vmId": "crafted"}
    )

    assert outcome.document == "<domain/>\nfirst true\nsecond vm-1\n"
    assert outcome.failure == ""
