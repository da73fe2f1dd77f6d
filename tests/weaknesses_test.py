# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The tables of what went wrong elsewhere are whole, and every test that they name exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = (TESTS.parent / "docs" / "weaknesses.md").read_text()
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| |")]
NAMED = sorted(set(re.findall(r"`([a-z0-9_/]+\.py)::(test_\w+)`", TABLE)))

# Every one of Keylime's that was published up to 2026-08.
KEYLIME = [
    *(
        "CVE-2021-3406",
        "CVE-2021-43310",
        "CVE-2022-23948",
        "CVE-2022-23949",
        "CVE-2022-23950",
        "CVE-2022-23951",
    ),
    *(
        "CVE-2022-23952",
        "CVE-2022-31250",
        "CVE-2022-1053",
        "CVE-2022-3500",
        "CVE-2023-3674",
        "CVE-2023-38200",
    ),
    *("CVE-2023-38201", "CVE-2025-1057", "CVE-2025-13609", "CVE-2026-1709", "CVE-2026-6420"),
]
# What reading the source of OpenAttestation 1.x and 2.x, of intel-secl 5.1 and of two libraries
# found.
READ = [
    *(
        "OAT selection",
        "OAT unsigned values",
        "OAT verdict",
        "OAT AIK chain",
        "OAT enrolment",
        "OAT polling",
    ),
    *(
        "OAT concurrent polls",
        "OAT growth",
        "OAT nonce",
        "OAT SHA-1",
        "OAT endorsement",
        "OAT passwords",
        "OAT sessions",
    ),
    *(
        "OAT single accept",
        "OAT report compare",
        "OAT privacy CA's own row",
        "OAT invalid identity",
        "OAT two quotes",
    ),
    *(
        "OAT open whitelist",
        "OAT analyses",
        "OAT first certificate",
        "OAT threshold 0",
        "OAT silent agent",
    ),
    *(
        "OAT cached failure",
        "OAT bad names",
        "secl no report",
        "secl expiry",
        "secl empty list",
        "secl foreign marks",
    ),
    *(
        "secl stale mark",
        "secl silent host",
        "secl workers",
        "secl bounds",
        "secl magic",
        "secl nonce",
    ),
    *(
        "secl digest cache",
        "secl AIK attributes",
        "FAIL to PASS",
        "PASS while failing",
        "state race",
        "caches",
    ),
    *(
        "go-attestation curves",
        "go-attestation sizes",
        "go-attestation recursion",
        "go-attestation event types",
    ),
    *("kairos nonce", "tpm2-tools, keylime labels"),
]


@functools.lru_cache
def defined_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    assert name in defined_in(file)


def test_every_row_names_a_test() -> None:
    assert len(ROWS) > 70
    assert [row for row in ROWS if "::test_" not in row.rsplit("|", 2)[-2]] == []


@pytest.mark.parametrize("number", KEYLIME)
def test_every_published_fault_is_answered(number: str) -> None:
    assert number in TABLE


@pytest.mark.parametrize("row", READ)
def test_every_weak_point_that_was_read_is_answered(row: str) -> None:
    assert f"| {row} |" in TABLE


@pytest.mark.parametrize(
    "row", [*(f"nova {number}" for number in range(1, 10)), "4.5.1", *"abcdefghijkmnopqrs", "l, t"]
)
def test_every_defect_of_the_predecessors_is_answered(row: str) -> None:
    assert f"| {row} |" in TABLE
