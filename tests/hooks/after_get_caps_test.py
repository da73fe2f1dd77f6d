# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The summary in the host's capabilities.

There when it can be had, and never at the verb's cost.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.lab import vdsm

HOOK = Path(__file__).parents[2] / "hooks/vdsm/after_get_caps/50_ovirt_tcp_summary.py"
CAPABILITIES = json.dumps({"cpuModel": "x", "additionalFeatures": ["a"], "large": "y" * 50_000})


class Host:
    """A host whose agent left a summary."""

    def __init__(self, directory: Path) -> None:
        self.summary, self.hooks = directory / "summary.json", directory / "hooks"
        clock = Clock()
        self.kept: dict[str, Any] = {
            "tpm": "2.0",
            "txt_launch": True,
            "pcrs": {"17": "aa"},
            "boot_id": clock.boot_id,
            "boottime_ms": clock.now_ms() - 5000,
        }
        self.summary.write_text(json.dumps(self.kept))
        vdsm.install(HOOK, self.hooks, "after_get_caps", SUMMARY=str(self.summary))

    def capabilities(self, document: str = CAPABILITIES) -> str:
        outcome = vdsm.run_hooks(self.hooks, "after_get_caps", document, kind="_hook_json")
        assert outcome.statuses == (0,)
        return outcome.document


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


SPOILERS: list[tuple[str, Callable[[Host], object]]] = [
    ("no summary", lambda host: host.summary.unlink()),
    ("garbage", lambda host: host.summary.write_bytes(os.urandom(100))),
    ("a list", lambda host: host.summary.write_text("[]")),
    ("deep", lambda host: host.summary.write_text("[" * 60_000)),
    ("huge", lambda host: host.summary.write_text("{" + " " * 100_000 + "}")),
    (
        "another boot",
        lambda host: host.summary.write_text(json.dumps({**host.kept, "boot_id": "x"})),
    ),
    (
        "no time",
        lambda host: host.summary.write_text(json.dumps({"boot_id": host.kept["boot_id"]})),
    ),
    (
        "a time that is no number",
        lambda host: host.summary.write_text(
            json.dumps(host.kept)[:-1] + ', "boottime_ms": 1e999}'
        ),
    ),
    ("a pipe", lambda host: (host.summary.unlink(), os.mkfifo(host.summary))),
]


@pytest.mark.parametrize("spoil", [one for _, one in SPOILERS], ids=[name for name, _ in SPOILERS])
def test_a_summary_that_is_no_good_leaves_the_capabilities_as_they_are(
    host: Host, spoil: Callable[[Host], object]
) -> None:
    spoil(host)

    assert host.capabilities() == CAPABILITIES


@pytest.mark.parametrize("document", ["", "[]", "{", "null"])
def test_odd_capabilities_stay_as_they_are(host: Host, document: str) -> None:
    assert host.capabilities(document) == document


def test_a_full_disk_leaves_the_capabilities_as_they_are(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "caps"
    file.write_text(CAPABILITIES)

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    (script,) = (host.hooks / "after_get_caps").iterdir()
    done = subprocess.run(
        [script],
        env={"_hook_json": str(file)},
        preexec_fn=full,
        stderr=subprocess.PIPE,
        check=False,
    )

    assert done.returncode == 0
    assert file.read_text() == CAPABILITIES
    assert not list(tmp_path.glob("caps.*"))


def test_without_a_file_it_ends_well(host: Host) -> None:
    (script,) = (host.hooks / "after_get_caps").iterdir()
    assert subprocess.run([script], env={}, stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_adds_the_summary_and_its_age(host: Host) -> None:
    told = json.loads(host.capabilities())

    added = told.pop("ovirt_tcp")
    assert told == json.loads(CAPABILITIES)
    assert added.pop("verdict_age_s") in (5, 6, 7)
    assert added == {"tpm": "2.0", "txt_launch": True, "pcrs": {"17": "aa"}}


@pytest.mark.parametrize(
    ("level", "lifetime_ms", "shown"),
    [
        ("trusted", 600_000, "trusted"),
        ("trusted", 1000, "unknown"),
        ("untrusted", 1000, "untrusted"),
        ("trusted", None, "trusted"),
        ("trusted", "1", "trusted"),
    ],
)
def test_shows_trust_only_while_the_verdict_counts(
    level: str, lifetime_ms: object, shown: str, host: Host
) -> None:
    host.kept.update(level=level, lifetime_ms=lifetime_ms)
    host.summary.write_text(json.dumps(host.kept))

    assert json.loads(host.capabilities())["ovirt_tcp"]["level"] == shown


def test_hands_on_nothing_but_short_known_members(host: Host) -> None:
    """Whoever took the agent over could make the capabilities unreadable for the engine."""
    good = json.dumps(host.kept)
    nested = "[" * 200 + "]" * 200
    bad_values = [
        "NaN",
        "1e999",
        "-Infinity",
        nested,
        '"' + "x" * 200 + '"',
        '"\\ud800"',
        '"a\\nb"',
    ]
    members = ['"unknown": "x"', '"pcrs": {"17": NaN, "18": [[]], "19": "bb", "23": "cc"}']
    for name in ("tpm", "bank", "agent_version", "level", "txt_launch", "logs"):
        for value in bad_values:
            members.append(f'"{name}": {value}')
    for member in members:
        host.summary.write_text(f"{good[:-1]}, {member}}}")

        added = json.loads(host.capabilities(), parse_constant=pytest.fail)["ovirt_tcp"]

        spoilt = member.split('"')[1]
        left = {name: value for name, value in added.items() if name != spoilt}
        if spoilt == "pcrs":
            assert added["pcrs"] == {"19": "bb"}
        else:
            assert spoilt not in added
        assert left.items() <= {**host.kept, "verdict_age_s": left["verdict_age_s"]}.items()


def test_an_alarm_after_the_work_changes_nothing(host: Host) -> None:
    (script,) = (host.hooks / "after_get_caps").iterdir()
    # As at the end of the interpreter, where nobody handles the signal any more.
    slow_end = "    signal.signal(signal.SIGALRM, signal.SIG_DFL)\n    time.sleep(1.5)\n"
    script.write_text(script.read_text().replace("    main()\n", f"    main()\n{slow_end}"))

    assert "ovirt_tcp" in json.loads(host.capabilities())


def test_takes_little_more_than_an_interpreters_start(host: Host, tmp_path: Path) -> None:
    """At most 20 ms, or that start once more where it takes longer.

    The quickest of many runs counts: the others tell what else the machine does.
    """
    file = tmp_path / "caps"
    file.write_text(CAPABILITIES)
    (script,) = (host.hooks / "after_get_caps").iterdir()
    bare = ["/usr/bin/python3", "-I", "-c", "pass"]

    def quickest_ms(command: list[str]) -> float:
        taken = []
        for _ in range(15):
            began = time.perf_counter()
            subprocess.run(command, env={"_hook_json": str(file)}, check=True)
            taken.append((time.perf_counter() - began) * 1000)
        return min(taken)

    start_ms = quickest_ms(bare)
    assert quickest_ms([str(script)]) - start_ms < max(20, 1.3 * start_ms)
