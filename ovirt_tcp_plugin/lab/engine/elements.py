# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What documents of the REST API are made of: entities, links, texts, and lists of them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

from ovirt_tcp_plugin.lab.engine.shapes import API
from ovirt_tcp_plugin.lab.engine.xml_text import Element


def element(tag: str, identifier: str = "", /, **members: str) -> Element:
    """Return an element with texts as its children, and an id if it has one."""
    root = Element(tag)
    if identifier:
        root.set("id", identifier)
    append_texts(root, **members)
    return root


def entity(tag: str, identifier: str, collection: str, /, **members: str) -> Element:
    """Return an entity: an element with id and address.

    Args:
        collection: path of the collection that it is in, below the API.
    """
    root = Element(tag, {"href": f"{API}/{collection}/{identifier}", "id": identifier})
    append_texts(root, **members)
    return root


def link(tag: str, identifier: str, collection: str, name: str = "") -> Element:
    """Return a link to another entity, perhaps with its name."""
    root = entity(tag, identifier, collection)
    if name:
        append_texts(root, name=name)
    return root


def named_link(tag: str, identifier: str, collection: str, rows: Mapping[str, Any]) -> Element:
    """Return a link with the name that the entity has in its table, if it is there."""
    row = rows.get(identifier)
    name = "" if row is None else row.name
    return link(tag, identifier, collection, name)


def listing(name: str, elements: Iterable[Element]) -> Element:
    """Return a collection."""
    root = Element(name)
    root.extend(elements)
    return root


def texts(**members: str) -> list[Element]:
    """Return an element for each text, in this order."""
    elements: list[Element] = []
    for member, value in members.items():
        child = Element(member)
        child.text = value
        elements.append(child)
    return elements


def append_texts(root: Element, /, **members: str) -> None:
    """Append an element for each text, in this order."""
    root.extend(texts(**members))


def append_links(root: Element, path: str, relations: str) -> None:
    """Append links to what an entity has.

    Args:
        relations: their names, with blanks between them.
    """
    for relation in relations.split():
        address = {"href": f"{API}/{path}/{relation}", "rel": relation}
        ElementTree.SubElement(root, "link", address)


def properties(plural: str, singular: str, values: Mapping[str, str]) -> list[Element]:
    """Return the list of name-value pairs, or nothing: the engine has no empty list of them."""
    if not values:
        return []
    pairs = (element(singular, name=name, value=value) for name, value in values.items())
    return [listing(plural, pairs)]


def timestamp(moment: datetime.datetime) -> str:
    """Return a time as the engine writes it: UTC, with milliseconds."""
    seconds = moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{seconds}.{moment.microsecond // 1000:03}Z"


def boolean(value: bool) -> str:
    """Return a truth value as the engine writes it."""
    return "true" if value else "false"
