# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The list of findings: a code belongs to one check, and says what to do."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.messages import findings
from ovirt_tcp_plugin.messages.findings import CheckNumber, FindingCode
from ovirt_tcp_plugin.messages.result import Finding


def test_an_unknown_code_has_no_advice() -> None:
    assert findings.next_step("nonsense") == ""


def test_a_part_that_only_a_later_server_knows_has_the_advice_of_parts() -> None:
    assert findings.next_step("hypervisor_differs") == findings.next_step("kernel_differs") != ""


@pytest.mark.parametrize("code", FindingCode, ids=lambda code: code.code)
def test_a_finding_bears_the_number_of_its_check(code: FindingCode) -> None:
    finding = code.finding("text", "expected", "seen")
    assert finding == Finding(int(code.check), code.code, "text", "expected", "seen")
    assert type(finding.check) is int  # as it is written to JSON and to logs


@pytest.mark.parametrize(
    ("component", "code"),
    [
        ("kernel", "kernel_differs"),
        ("boot_loader_2", "boot_loader_differs"),
        ("type_4ff", "event_differs"),
    ],
)
def test_a_part_that_differs_is_called_by_its_word(component: str, code: str) -> None:
    finding = findings.part_differs(component, "text", "a", "b")
    assert (finding.check, finding.code) == (CheckNumber.REFERENCE_VALUES, code)
    assert code in findings.PART_CODES
