# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The adapter of engine-config: a real process that does as the real one does, or misbehaves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.engine.engine_config import MAX_OUTPUT, EngineConfig
from ovirt_tcp_plugin.lab import engine_config

PROPERTIES = "UserDefinedVMProperties"
KEY = "ExternalSchedulerEnabled"


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    return EngineConfig(engine_config.install(tmp_path)[0])


def misbehaving(directory: Path, script: str, within_s: float = 5.0) -> EngineConfig:
    command = directory / "engine-config"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return EngineConfig(command, within_s)


def test_a_missing_command_says_where_and_as_whom_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        errors.Unavailable, match="cannot be run .No such file.*engine machine, as root"
    ):
        EngineConfig(tmp_path / "none").values(KEY)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (
            "echo 'Connection to the Database failed. Please check'; exit 1",
            "-g ExternalSchedulerEnabled: Connection to the",
        ),
        ("echo 'FATAL: no configuration' >&2; exit 1", "FATAL: no configuration"),
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "exit code -9"),
        ("exit 0", "printed what is no value: nothing"),
        ("echo something else", "printed what is no value: something else"),
        (f"echo '{KEY}: true version: general'; echo more", "printed what is no value"),
        (f"printf '{KEY}: \\377 version: general\\n'", "not UTF-8"),
        ("printf 'a\\033[2Jb'; exit 1", r"a \[2Jb"),
        ("yes", f"printed more than {MAX_OUTPUT} bytes"),
        ("yes >&2", f"printed more than {MAX_OUTPUT} bytes"),
    ],
)
def test_whatever_it_does_wrong_is_one_plain_sentence(
    tmp_path: Path, script: str, text: str
) -> None:
    with pytest.raises(errors.Unavailable, match=text) as failed:
        misbehaving(tmp_path, script).values(KEY)
    assert str(failed.value).isprintable()


@pytest.mark.parametrize(
    "script", ["sleep 60", "sleep 60 & wait", "exec >&- 2>&-; sleep 60", "trap '' TERM; sleep 60"]
)
def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path, script: str) -> None:
    began = time.monotonic()
    with pytest.raises(errors.Unavailable, match="did not end within 0 s"):
        misbehaving(tmp_path, script, 0.2).values(KEY)
    assert time.monotonic() - began < 2


def test_a_change_without_effect_is_noticed(tmp_path: Path) -> None:
    config = misbehaving(tmp_path, '[ "$1" = -g ] && echo "$2: false version: general"; exit 0')
    with pytest.raises(errors.Unavailable, match="but then the value is another one"):
        config.set(KEY, "true")
    with pytest.raises(errors.Unavailable, match="the value is not there"):
        config.merge(PROPERTIES, "a=^x$", "general")


def test_an_unknown_key_or_level_is_told(config: EngineConfig) -> None:
    with pytest.raises(errors.Unavailable, match='"node" is null'):
        config.values("Nonsense")
    with pytest.raises(errors.NotFound, match="UserDefinedVMProperties of version 9.9"):
        config.value(PROPERTIES, "9.9")


def test_values_are_read_set_and_merged_level_by_level(config: EngineConfig) -> None:
    assert config.values(KEY) == {"general": "false"}
    config.set(KEY, "true")
    config.set(PROPERTIES, "a=^x version: 4.2$;b=", "4.8")
    config.merge(PROPERTIES, "c=^(true|false)$", "4.8")
    config.merge(PROPERTIES, "c=^(true|false)$", "4.8")
    config.forget()
    assert config.value(KEY) == "true"
    assert config.value(PROPERTIES, "4.8") == "a=^x version: 4.2$;b=;c=^(true|false)$"
    assert config.value(PROPERTIES, "4.7") == ""


def test_what_was_read_is_not_asked_for_again_until_it_is_forgotten(tmp_path: Path) -> None:
    config = misbehaving(tmp_path, f'echo . >> {tmp_path}/asked; echo "$2: false version: general"')
    for _ in range(3):
        config.value(KEY)
    config.forget()
    config.value(KEY)
    assert (tmp_path / "asked").read_text().count(".") == 2
