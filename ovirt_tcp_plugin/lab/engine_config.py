# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's command `engine-config` over a file instead of the engine's database.

Source: `EngineConfigLogic` of the engine, 4.5.

It behaves as the real one does: errors go to stdout, `-s` replaces and `-m` merges, a key with
several versions without `--cver` asks on stdin and, at its end, asks for ever. `install` makes an
executable; it runs without this package.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

LEVELS = ("4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8")
# Rows of a new engine (`0000_config.sql`), as far as anybody asks here: key -> version -> value.
STOCK = {
    "ExternalSchedulerServiceURL": {"general": "http://localhost:18781/"},
    "ExternalSchedulerConnectionTimeout": {"general": "100"},
    "ExternalSchedulerEnabled": {"general": "false"},
    "ExternalSchedulerResponseTimeout": {"general": "120000"},
    "RetryToRunAutoStartVmShortIntervalInSeconds": {"general": "30"},
    "RetryToRunAutoStartVmLongIntervalInSeconds": {"general": "1800"},
    "NumOfTriesToRunFailedAutoStartVmInShortIntervals": {"general": "10"},
    "UserDefinedVMProperties": {level: "" for level in LEVELS},
}
_MERGED = {"UserDefinedVMProperties": ";"}
_DEFINITION = r"[a-z_A-Z0-9]+=[^;]*"
_DEFINITIONS = re.compile(rf"({_DEFINITION}(;{_DEFINITION})*;?)?")
_NUMBERS = ("Timeout", "InSeconds", "ShortIntervals")

_VERBS = {
    "-g": "get",
    "--get": "get",
    "-s": "set",
    "--set": "set",
    "-m": "merge",
    "--merge": "merge",
    "-a": "all",
    "--all": "all",
}
_NO_VERB = (
    "Action verb must come first, and '{}' is not an action.\n"
    "Please tell me what to do: list? get? set? get-all?"
)
_JSON_NODE = "com.fasterxml.jackson.databind.JsonNode"
_NO_NODE = f'Cannot invoke "{_JSON_NODE}.get(String)" because "node" is null'
_NOT_MERGED = f'Cannot invoke "{_JSON_NODE}.asBoolean(boolean)" because the return value is null'

Rows = dict[str, dict[str, str]]


class _Refused(Exception):
    """What it says before it ends with 1."""


def install(directory: Path) -> tuple[Path, Path]:
    """Make an executable and the file that it works on, of a new engine; return both."""
    options = directory / "vdc_options.json"
    options.write_text(json.dumps(STOCK), encoding="utf-8")
    command = directory / "engine-config"
    line = f'exec "{sys.executable}" -I "{__file__}" "{options}" "$@"'
    command.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    command.chmod(0o755)
    return command, options


def main() -> None:
    """Run one action on the file that the first argument names."""
    path = Path(sys.argv[1])
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows: Rows = json.loads(path.read_text(encoding="utf-8"))
        try:
            changed = _run(rows, sys.argv[2:])
        except _Refused as e:
            sys.stdout.write(f"{e}\n")
            sys.exit(1)
        if changed:
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(rows), encoding="utf-8")
            os.replace(fresh, path)


def _run(rows: Rows, arguments: Sequence[str]) -> bool:
    """Do what the arguments say; return whether a row changed."""
    if not arguments:
        raise _Refused("Error: at least 1 argument needed for configuration utility to run.")
    verb, _, key = arguments[0].partition("=")
    action = _VERBS.get(verb)
    if action is None:
        raise _Refused(_NO_VERB.format(arguments[0]))
    if action == "all":
        _print(rows, list(rows), "")
        return False
    version = _version(arguments)
    operand = key or _first_operand(arguments[1:])
    if not operand:
        missing = "key" if action == "get" else "key or value"
        raise _Refused(f"Missing {missing} for {action} action.")
    if action == "get":
        _print(rows, [operand], version)
        return False
    key, equal, value = operand.partition("=")
    if not equal:
        raise _Refused("Argument for set/merge action must be in format of key=value.")
    return _change(rows, key, value, version, action == "merge")


def _first_operand(words: Sequence[str]) -> str:
    """Return the first word that is no option, empty without any."""
    for word in words:
        if not word.startswith("-"):
            return word
    return ""


def _version(arguments: Sequence[str]) -> str:
    """Return the version that is asked for, empty for none."""
    for word in arguments:
        if word.startswith("--cver="):
            return word.partition("=")[2]
    return ""


def _print(rows: Rows, keys: Sequence[str], version: str) -> None:
    for key in keys:
        if key not in rows:
            raise _Refused(_NO_NODE)
        if version:
            _print_version(key, rows[key], version)
            continue
        for row_version, value in rows[key].items():
            sys.stdout.write(f"{key}: {value} version: {row_version}\n")


def _print_version(key: str, values: Mapping[str, str], version: str) -> None:
    if version not in values:
        reason = f"no such entry with version '{version}'."
        raise _Refused(f"Error fetching {key} value: {reason}")
    sys.stdout.write(f"{values[version]}\n")


def _change(rows: Rows, key: str, value: str, version: str, merge: bool) -> bool:
    if key not in rows:
        raise _Refused(_NO_NODE)
    if merge and key not in _MERGED:
        raise _Refused(_NOT_MERGED)
    if not version:
        version = _only_version(rows[key]) or _ask(rows[key])
    present = rows[key].get(version, "")
    if merge and present.strip():
        value = _merged(present.strip(), value, _MERGED[key])
        if value == present.strip():
            sys.stdout.write("Merge operation cancelled as value is unchanged.\n")
            return False
    _check_value(key, value)
    if version not in rows[key]:
        reason = f"No such entry with version {version}."
        raise _Refused(f"Error setting {key}'s value. {reason}")
    # PostgreSQL lists a row that was updated after the others.
    del rows[key][version]
    rows[key][version] = value
    return True


def _check_value(key: str, value: str) -> None:
    if key in _MERGED and not _DEFINITIONS.fullmatch(value):
        subject = "user defined VM properties specification"
        text = f"Invalid syntax, {subject} should conform to {_DEFINITIONS.pattern}"
        raise _Refused(f"Cannot set value {value} to key {key}. {text}")
    if key.endswith(_NUMBERS) and not re.fullmatch("[+-]?[0-9]+", value):
        raise _Refused(f"Cannot set value {value} to key {key}. ")


def _merged(present: str, added: str, delimiter: str) -> str:
    for definition in added.split(delimiter):
        if definition in present.split(delimiter):
            continue
        if not present.endswith(delimiter):
            present += delimiter
        present += definition
    return present


def _only_version(versions: Collection[str]) -> str:
    """Return the version of a key that has one, empty if it has several."""
    return next(iter(versions)) if len(versions) == 1 else ""


def _ask(versions: Iterable[str]) -> str:
    """Ask which version is meant.

    An end of stdin reads as an empty line: the real one, too, asks again for ever.
    """
    listed = list(versions)
    while True:
        sys.stdout.write("Please select a version:\n")
        for number, version in enumerate(listed, 1):
            sys.stdout.write(f"{number}. {version}\n")
        sys.stdout.flush()
        answer = sys.stdin.readline().strip()
        if answer.isdigit() and 0 < int(answer) <= len(listed):
            return listed[int(answer) - 1]


if __name__ == "__main__":
    main()
