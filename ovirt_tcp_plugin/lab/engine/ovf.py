# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A VM's configuration as it is exported and imported: what of an OVF matters to trust
(`OvfVmWriter`, `OvfVmReader`).

The flag TrustedService is the cluster's, not the VM's, and nobody signs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from xml.etree import ElementTree

from ovirt_tcp_plugin.lab.engine.errors import Fault

_OVF, _XSI = "http://schemas.dmtf.org/ovf/envelope/1/", "http://www.w3.org/2001/XMLSchema-instance"


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What travels."""

    vm_id: str
    name: str
    trusted_service: bool
    properties: Mapping[str, str]


def write(given: Configuration) -> str:
    """Return an OVF."""
    ElementTree.register_namespace("ovf", _OVF)
    ElementTree.register_namespace("xsi", _XSI)
    root = ElementTree.Element(f"{{{_OVF}}}Envelope", {f"{{{_OVF}}}version": "4.5.0.0"})
    content = ElementTree.SubElement(
        root, "Content", {f"{{{_OVF}}}id": "out", f"{{{_XSI}}}type": "ovf:VirtualSystem_Type"}
    )
    properties = ";".join(f"{name}={value}" for name, value in given.properties.items())
    for tag, text in (
        ("Name", given.name),
        ("TrustedService", "true" if given.trusted_service else "false"),
        ("PredefinedProperties", ""),
        ("UserDefinedProperties", properties),
    ):
        ElementTree.SubElement(content, tag).text = text
    ElementTree.SubElement(content, "Section", {f"{{{_OVF}}}id": given.vm_id})
    return ElementTree.tostring(root, encoding="unicode")


def read(text: str) -> Configuration:
    """Return what an OVF says. Raises Fault (400)."""
    try:
        content = ElementTree.fromstring(text).find("Content")  # noqa: S314 - the lab talks to itself
    except ElementTree.ParseError as e:
        raise Fault(
            400,
            "Operation Failed",
            "[Cannot import VM. Failed to parse a given OVF configuration.]",
        ) from e
    section = None if content is None else content.find("Section")
    if content is None or section is None:
        raise Fault(
            400,
            "Operation Failed",
            "[Cannot import VM. Failed to parse a given OVF configuration.]",
        )
    pairs = (content.findtext("UserDefinedProperties") or "").split(";")
    return Configuration(
        section.get(f"{{{_OVF}}}id", ""),
        content.findtext("Name") or "",
        content.findtext("TrustedService") == "true",
        dict(pair.split("=", 1) for pair in pairs if "=" in pair),
    )
