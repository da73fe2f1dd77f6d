# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The lab's `engine-config` has the traps of the real one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab import engine_config

PROPERTIES, LEVEL = "UserDefinedVMProperties", "--cver=4.8"


@pytest.fixture
def command(tmp_path: Path) -> Path:
    return engine_config.install(tmp_path)[0]


def run(command: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
    )
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "at least 1 argument"),
        (("-x",), "'-x' is not an action"),
        (("-g",), "Missing key"),
        (("-g", "Nonsense"), '"node" is null'),
        (("-g", PROPERTIES, "--cver=9.9"), "no such entry with version '9.9'"),
        (("-s", "ExternalSchedulerEnabled"), "must be in format of key=value"),
        (("-s", "ExternalSchedulerEnabled=true", "--cver=9.9"), "No such entry with version 9.9"),
        (("-s", "ExternalSchedulerResponseTimeout=soon"), "Cannot set value soon"),
        (("-s", f"{PROPERTIES}=no definition", LEVEL), "Invalid syntax"),
        (("-m", "ExternalSchedulerEnabled=true"), "asBoolean"),
    ],
)
def test_what_it_refuses_is_told_on_stdout(
    command: Path, arguments: tuple[str, ...], text: str
) -> None:
    assert text in run(command, *arguments, code=1)


def test_a_get_without_version_lists_them_all_and_one_with_it_prints_the_value(
    command: Path,
) -> None:
    listed = run(command, "-g", PROPERTIES).splitlines()
    assert listed[0] == f"{PROPERTIES}:  version: 4.2"
    assert len(listed) == len(engine_config.LEVELS)
    assert (
        run(command, "--get=ExternalSchedulerEnabled")
        == "ExternalSchedulerEnabled: false version: general\n"
    )
    assert run(command, "-g", "ExternalSchedulerEnabled", "--cver=general") == "false\n"
    assert "ExternalSchedulerEnabled: false version: general" in run(command, "--all")


def test_a_boolean_takes_anything(command: Path) -> None:
    run(command, "-s", "ExternalSchedulerEnabled=perhaps")
    assert run(command, "-g", "ExternalSchedulerEnabled", "--cver=general") == "perhaps\n"


def test_set_replaces_and_merge_adds_what_is_not_there_word_for_word(command: Path) -> None:
    for verb, given, left in (
        ("-s", "a=^x$", "a=^x$"),
        ("-m", "b=^y=$;a=^x$", "a=^x$;b=^y=$"),
        ("-m", "a=^other$", "a=^x$;b=^y=$;a=^other$"),  # twice the same name: nobody minds
        ("-s", "c=^z$;", "c=^z$;"),
        ("-m", "d=.*", "c=^z$;d=.*"),
        ("-s", "", ""),
    ):
        run(command, verb, f"{PROPERTIES}={given}", LEVEL)
        assert run(command, "-g", PROPERTIES, LEVEL) == f"{left}\n"
    assert run(command, "-g", PROPERTIES, "--cver=4.7") == "\n"


def test_a_merge_of_what_is_there_is_cancelled_and_no_error(command: Path) -> None:
    run(command, "-s", f"{PROPERTIES}=a=^x$", LEVEL)
    assert "cancelled as value is unchanged" in run(command, "-m", f"{PROPERTIES}=a=^x$", LEVEL)


def test_without_a_version_it_asks_for_ever_when_there_are_several(
    command: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [command, "-s", f"{PROPERTIES}=a=^x$"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as asking:
        assert asking.stdout is not None
        assert [asking.stdout.readline() for _ in range(9)].count("Please select a version:\n") == 2
        asking.kill()
    rows = json.loads((tmp_path / "vdc_options.json").read_text())
    assert rows == engine_config.STOCK
