# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`make fuzz`: looks for bytes that break a parser, guided by coverage (atheris, libFuzzer).

    python -m tests.fuzz.run [NAME...]        all targets, or those; FUZZ_SECONDS each (60)

What was found interesting is kept in build/fuzz/NAME/ and is where the next run starts. The bytes
that break a parser are in build/fuzz/NAME.crash-*: make a test of them.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "fuzz"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
# Larger ones are tried by tests/fuzz/targets_test.py: with them libFuzzer would do little else than
# copy.
MAX_SIZE = 16 * 1024
# Of the whole process: Python, our package and the corpus take a quarter.
MAX_RSS_MIB = 1024
_ONE = "--one"
_CHATTER = ("INFO:", "WARNING:", "#")


def main(arguments: list[str]) -> int:
    """Fuzz each target in a process of its own, two at a time; return 1 if one of them broke."""
    from tests.fuzz.targets import TARGETS

    unknown = [name for name in arguments if name not in TARGETS]
    if unknown:
        print(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
        return 2
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        statuses = list(pool.map(fuzz, arguments or list(TARGETS)))
    print(f"{len(statuses)} targets, {sum(map(bool, statuses))} broken")
    return int(any(statuses))


def fuzz(name: str) -> int:
    """Fuzz one target; print its last words, and all of them if it broke."""
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz.run", _ONE, name),
        f"-max_total_time={SECONDS}",
        f"-max_len={MAX_SIZE}",
        f"-rss_limit_mb={MAX_RSS_MIB}",
        "-timeout=5",
        f"-artifact_prefix={KEPT / name}.",
        str(KEPT / name),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    told = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if line and not line.startswith(_CHATTER)
    ]
    print(
        f"{name:24}", "\n    ".join(["BROKEN", *told]) if done.returncode else told[-1], flush=True
    )
    return done.returncode


def fuzz_here(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["ovirt_tcp_plugin"]):
        from tests.fuzz.targets import TARGETS
    from tests.messages import hostile

    target = TARGETS[name]
    (KEPT / name / "good").write_bytes(target.good)
    atheris.Setup(
        [name, *options],
        lambda untrusted: hostile.in_bounds(target.call, untrusted, target.declared),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == [_ONE]:
        fuzz_here(sys.argv[2], sys.argv[3:])
    sys.exit(main(sys.argv[1:]))
