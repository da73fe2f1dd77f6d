# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads the document of a client's request. A text comes from the element's own `findtext`."""

from __future__ import annotations

from typing import Optional
from xml.etree import ElementTree

from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.model import Rule
from ovirt_tcp_plugin.lab.engine.xml_text import Element

MAX_INTEGER = 2**31 - 1
MIN_INTEGER = -(2**31)


def parse(body: bytes) -> Element:
    """Return the root element of a request. Raises Fault (400)."""
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - the lab talks to itself
    except ElementTree.ParseError as e:
        raise Fault(400, "Request syntactically incorrect.", str(e)) from e


def integer(root: Element, path: str) -> Optional[int]:
    """Return the number in a descendant, None if it is absent.

    Raises:
        Fault: it is no number of 32 bits (400), with the words of the engine's reader.
    """
    text = root.findtext(path)
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError as e:
        raise _invalid(f"The text '{text}' isn't a valid integer value.") from e
    if value > MAX_INTEGER:
        raise _invalid(f"Value {value} is greater than maximum integer {MAX_INTEGER}")
    if value < MIN_INTEGER:
        raise _invalid(f"Value {value} is lower than minimum integer {MIN_INTEGER}")
    return value


def _invalid(detail: str) -> Fault:
    return Fault(400, "Invalid value", detail)


def identifier(root: Element, path: str) -> str:
    """Return the id of a linked descendant, empty if it is absent."""
    linked = root.find(path)
    return "" if linked is None else linked.get("id", "")


def properties(root: Element, path: str) -> Optional[dict[str, str]]:
    """Return name-value pairs below `path`, None if it is absent."""
    parent = root.find(path)
    if parent is None:
        return None
    return {pair.findtext("name", ""): pair.findtext("value", "") for pair in parent}


def rule(root: Optional[Element], present: Rule) -> Rule:
    """Return a rule of an affinity group after an edit.

    What the document does not say stays (`AffinityGroupMapper`).
    """
    edited = Rule(present.enabled, present.enforcing, present.positive)
    if root is None:
        return edited
    positive = root.findtext("positive")
    enforcing = root.findtext("enforcing")
    if root.findtext("enabled") == "false":
        edited.enabled = False
        edited.positive = False
    elif positive is not None:
        edited.enabled = True
        edited.positive = positive == "true"
    if enforcing is not None:
        edited.enforcing = enforcing == "true"
    return edited
