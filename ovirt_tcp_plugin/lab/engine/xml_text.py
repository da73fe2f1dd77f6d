# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""XML as the engine writes it.

Four blanks a level, `<tag/>` for what has no content, `<tag></tag>` for an empty text. VMs and
hosts have a hundred elements each, of which few differ: they are text with holes, not trees.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

Element = ElementTree.Element

INDENT = "    "
_HEADER = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


class Template:
    """An element as text, at the left margin.

    `%(name)s` is a hole; a line `@name` takes elements of its level, or none.

    Attributes:
        levels: how deep in the element the lines `@name` are.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.strip("\n").split("\n")
        self.levels: dict[str, int] = {}
        for line in self._lines:
            name = line.lstrip()
            if name.startswith("@"):
                indent = len(line) - len(name)
                self.levels[name[1:]] = indent // len(INDENT)
        self.at = functools.lru_cache(maxsize=None)(self._at)

    def _at(self, depth: int) -> str:
        """Return the text at a depth of the document."""
        lines = []
        for line in self._lines:
            name = line.lstrip()
            if name.startswith("@"):
                lines.append(f"%({name[1:]})s")
            else:
                lines.append(f"{INDENT * depth}{line}\n")
        return "".join(lines)


class Filled(Element):
    """An element that is a template with values.

    Args:
        texts: for its holes.
        lines: elements for its lines `@name`; a name that is missing has none.
    """

    def __init__(
        self,
        tag: str,
        template: Template,
        texts: Mapping[str, str],
        lines: Mapping[str, list[Element]],
    ) -> None:
        super().__init__(tag)
        self.template = template
        self.texts = texts
        self.lines = lines

    def at(self, depth: int) -> str:
        """Return the text at a depth of the document."""
        values = dict(self.texts)
        for name, level in self.template.levels.items():
            elements = self.lines.get(name, ())
            values[name] = "".join(text_of(element, depth + level) for element in elements)
        return self.template.at(depth) % values


def render(element: Element) -> bytes:
    """Return a document."""
    return (_HEADER + text_of(element)).encode()


def text_of(element: Element, depth: int = 0) -> str:
    """Return an element as text."""
    lines: list[str] = []
    _write(element, depth, lines)
    return "".join(lines)


def _write(element: Element, depth: int, lines: list[str]) -> None:
    if isinstance(element, Filled):
        lines.append(element.at(depth))
        return
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in element.items())
    start = f"{INDENT * depth}<{element.tag}{attributes}"
    if len(element):
        lines.append(f"{start}>\n")
        for child in element:
            _write(child, depth + 1, lines)
        lines.append(f"{INDENT * depth}</{element.tag}>\n")
    elif element.text is None:
        lines.append(f"{start}/>\n")
    else:
        lines.append(f"{start}>{escape(element.text)}</{element.tag}>\n")
