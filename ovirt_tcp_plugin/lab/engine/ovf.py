# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A VM's configuration as it is exported and imported: what of an OVF matters to trust.

Sources: `OvfVmWriter`, `OvfVmReader`. The flag TrustedService is the cluster's, not the VM's, and
nobody signs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from xml.etree import ElementTree

from ovirt_tcp_plugin.lab.engine.errors import invalid

_OVF = "http://schemas.dmtf.org/ovf/envelope/1/"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_CANNOT_PARSE = "Cannot import VM. Failed to parse a given OVF configuration."
_ID = f"{{{_OVF}}}id"


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What travels."""

    vm_id: str
    name: str
    trusted_service: bool
    properties: Mapping[str, str]


def write(configuration: Configuration) -> str:
    """Return an OVF."""
    ElementTree.register_namespace("ovf", _OVF)
    ElementTree.register_namespace("xsi", _XSI)
    root = ElementTree.Element(f"{{{_OVF}}}Envelope", {f"{{{_OVF}}}version": "4.5.0.0"})
    attributes = {_ID: "out", f"{{{_XSI}}}type": "ovf:VirtualSystem_Type"}
    content = ElementTree.SubElement(root, "Content", attributes)
    pairs = [f"{name}={value}" for name, value in configuration.properties.items()]
    texts = {
        "Name": configuration.name,
        "TrustedService": "true" if configuration.trusted_service else "false",
        "PredefinedProperties": "",
        "UserDefinedProperties": ";".join(pairs),
    }
    for tag, text in texts.items():
        ElementTree.SubElement(content, tag).text = text
    ElementTree.SubElement(content, "Section", {_ID: configuration.vm_id})
    return ElementTree.tostring(root, encoding="unicode")


def read(text: str) -> Configuration:
    """Return what an OVF says. Raises Fault (400)."""
    try:
        content = ElementTree.fromstring(text).find("Content")  # noqa: S314 - the lab talks to itself
    except ElementTree.ParseError as e:
        raise invalid(_CANNOT_PARSE) from e
    section = None if content is None else content.find("Section")
    if content is None or section is None:
        raise invalid(_CANNOT_PARSE)
    trusted_service = content.findtext("TrustedService") == "true"
    properties: dict[str, str] = {}
    for pair in content.findtext("UserDefinedProperties", "").split(";"):
        name, separator, value = pair.partition("=")
        if separator:
            properties[name] = value
    return Configuration(
        section.get(_ID, ""), content.findtext("Name", ""), trusted_service, properties
    )
