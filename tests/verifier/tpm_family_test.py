# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The families of TPMs: those of the messages, and asked for in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import ovirt_tcp_plugin
from ovirt_tcp_plugin.messages import enrolment
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.tpm_family import FAMILIES

VERIFIER = Path(ovirt_tcp_plugin.__file__).parent / "verifier"
# Each family's own modules, and what leads to them.
KNOW_FAMILIES = {"quote20.py", "quote12.py", "endorsement.py", "endorsement12.py", "tpm_family.py"}
OF_A_FAMILY = {"EnrolledTpm20", "EnrolledTpm12", "tpm12", "quote12", "quote20", "endorsement12"}


def test_every_family_of_the_messages_is_known() -> None:
    assert set(FAMILIES) == set(enrolment.FAMILIES)
    assert settings.TPM12_FAMILY in FAMILIES


def test_nobody_else_asks_of_what_family_a_tpm_is() -> None:
    asking = {
        path.name
        for path in VERIFIER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and any(alias.name in OF_A_FAMILY for alias in node.names)
    }
    assert asking <= KNOW_FAMILIES
