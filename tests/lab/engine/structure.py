# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The kind of a request, and the structure of an answer.

A structure is elements, attributes, order and refusals, but no value.

`real_engine.json` has the structure of a real engine's answers (4.5.8), one for each kind; `record`
made it. The simulator is compared with it by `real_engine_test`, and by every test whose program
talks to the simulator (`tests/conftest.py`).
"""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional
from xml.etree import ElementTree

from ovirt_tcp_plugin.lab.engine import request_documents
from tests.lab.engine import known

RECORDED = Path(__file__).parent / "real_engine.json"

_ROOT = "/ovirt-engine/api"
# Parameters whose value makes another kind of request.
_TELLING = frozenset({"follow", "all_content", "next_run", "clone"})
_VALUE = re.compile(r"=\s*(?!\s)(\"[^\"]*\"|\S+)")
_PAGE = re.compile(r"\bpage \d+")
_ALTERNATIVES = re.compile(r"(\S+ ?!?=\{\})( or \1)+")
# What differs from case to case in the text of a refusal.
_VARIABLE = (
    (re.compile(r"(The keys are: )[^\]]*"), r"\1{}"),
    (re.compile(r"(attached to cluster\(s\): ).*(, please)"), r"\1{}\2"),
    (re.compile(r"(following cluster policies: ).*(\.\])"), r"\1{}\2"),
    (re.compile(r"Value -?\d+ is"), "Value {} is"),
    (re.compile(r"The string '[^']*'"), "The string '{}'"),
    (re.compile(r"(in )\S+( status\.)"), r"\1{}\2"),
    (
        re.compile(r"(Affinity Groups: ).*?(, Hosts: ).*?(, VMs: ).*?\]", re.DOTALL),
        r"\1{}\2{}\3{}]",
    ),
    (re.compile(r"(following Hosts .*mode: ).*?(\.\n)", re.DOTALL), r"\1{}\2"),
    (re.compile(r"(non-migratable VMs are: ).*?\.\]"), r"\1{}.]"),
    (re.compile(r"(See below for details:).*", re.DOTALL), r"\1{}"),
    (re.compile(r"(Host in UP state: ).*"), r"\1{}"),
)


@dataclasses.dataclass
class Node:
    """An element as all of its instances have it.

    Attributes:
        attributes: of any instance; `always` is what every instance has: attributes as `@name`,
            and children.
        order: tags of the children, in the order that they come in.
        links: relations of its `link` children.
    """

    attributes: set[str] = dataclasses.field(default_factory=set)
    always: set[str] = dataclasses.field(default_factory=set)
    order: list[str] = dataclasses.field(default_factory=list)
    links: set[str] = dataclasses.field(default_factory=set)
    children: dict[str, Node] = dataclasses.field(default_factory=dict)

    def add(self, element: ElementTree.Element, first: bool) -> None:
        """Take in an instance."""
        present = _members(element)
        self.attributes |= set(element.attrib)
        self.always = present if first else self.always & present
        previous = -1
        for child in element:
            if child.tag not in self.order:
                self.order.insert(previous + 1, child.tag)
            previous = self.order.index(child.tag)
            if child.tag == "link":
                self.links.add(child.get("rel", ""))
                continue
            is_new = child.tag not in self.children
            self.children.setdefault(child.tag, Node()).add(child, is_new)

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        children = {tag: node.plain() for tag, node in self.children.items()}
        whole = {
            "attributes": sorted(self.attributes),
            "always": sorted(self.always),
            "order": self.order,
            "links": sorted(self.links),
            "children": children,
        }
        return {name: value for name, value in whole.items() if value}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Node:
        """Return what `plain` returned."""
        node = cls(
            set(plain.get("attributes", ())),
            set(plain.get("always", ())),
            list(plain.get("order", ())),
        )
        node.links = set(plain.get("links", ()))
        node.children = {tag: cls.of(child) for tag, child in plain.get("children", {}).items()}
        return node


def kind_of(verb: str, path: str, query: Mapping[str, str], body: str) -> str:
    """Return the kind of a request.

    That is its method, the path with `{}` for ids, parameters without their values, and the body's
    structure.
    """
    parts = path.replace(_ROOT, "").strip("/").split("/")
    if parts[0] != "options":
        parts[1::2] = ["{}"] * len(parts[1::2])
    route = "/".join(parts)
    parameters = []
    for name, value in sorted(query.items()):
        if name == "search":
            parameters.append(f"search={_search(value)}")
        else:
            parameters.append(f"{name}={value}" if name in _TELLING else name)
    asked = f"?{'&'.join(parameters)}" if parameters else ""
    document = ""
    if body.strip().startswith("<"):
        document = f" {_outline(request_documents.parse(body.encode()))}"
    return f"{verb} {route}{asked}{document}"


def query_of(url: str) -> dict[str, str]:
    """Return the parameters in a URL."""
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


def detail_of(root: ElementTree.Element) -> str:
    """Return the text of a refusal, with `{}` for what differs from case to case.

    It is empty if the document is no refusal.
    """
    detail = root.findtext(".//fault/detail") if root.tag != "fault" else root.findtext("detail")
    return variable(detail or "")


def variable(detail: str) -> str:
    """Return a text of a refusal with `{}` for what differs from case to case."""
    for pattern, replacement in _VARIABLE:
        detail = pattern.sub(replacement, detail)
    return detail


def differences(element: ElementTree.Element, real: Node, path: str = "") -> list[str]:
    """Return how an answer's element differs from the real one's, each with its path of tags."""
    where = f"{path}/{element.tag}"
    texts = [
        f"{where}/@{name}: not there at the real engine"
        for name in element.attrib
        if name not in real.attributes
    ]
    present = _members(element)
    # A list may be empty.
    if len(real.children) != 1 or real.links:
        texts += [f"{where}/{name}: missing" for name in sorted(real.always - present)]
    last = 0
    for child in element:
        if child.tag not in real.order:
            texts.append(f"{where}/{child.tag}: not there at the real engine")
            continue
        position = real.order.index(child.tag)
        if position < last:
            texts.append(f"{where}/{child.tag}: after {real.order[last]}")
        last = max(last, position)
        if child.tag == "link":
            if child.get("rel") not in real.links:
                texts.append(f"{where}/link {child.get('rel')}: not there at the real engine")
        else:
            texts += differences(child, real.children[child.tag], where)
    return sorted(set(texts))


class Recorded:
    """What a real engine answered, and what is known to be like it."""

    def __init__(self) -> None:
        content = json.loads(RECORDED.read_text(encoding="utf-8"))
        self.kinds: dict[str, dict[str, Any]] = content["kinds"]
        self.texts: set[str] = set(content["texts"]) | set(known.TEXTS.values())
        self._nodes: dict[str, Node] = {}

    def compare(self, kind: str, status: int, content_type: str, body: str) -> list[str]:
        """Return how an answer differs from the real engine's, except for what is known."""
        if status >= 400:
            return self._compare_refusal(status, content_type, body)
        real = self._real(kind)
        if real is None:
            return ["no such request was recorded, and none that is like it"]
        texts = []
        if (status, content_type) != (real["status"], real["content_type"]):
            texts.append(f"{status} {content_type}, really {real['status']} {real['content_type']}")
        root = request_documents.parse(body.encode())
        if root.tag != real["root"]:
            return [*texts, f"<{root.tag}>, really <{real['root']}>"]
        node = self._nodes.setdefault(kind, Node.of(real["node"]))
        texts += differences(root, node)
        return [
            text for text in texts if not any(pattern.fullmatch(text) for pattern in known.ELEMENTS)
        ]

    def _real(self, kind: str) -> Optional[Mapping[str, Any]]:
        recorded = self.kinds.get(kind)
        if recorded is not None and "children" in recorded["node"]:
            return recorded
        for pattern, (like, status) in known.KINDS.items():
            if pattern.fullmatch(kind):
                name, _, member = like.partition(" > ")
                real = dict(self.kinds[name], status=status)
                if member:
                    real["root"] = member
                    real["node"] = real["node"]["children"][member]
                return real
        return recorded  # an empty list, if anything

    def _compare_refusal(self, status: int, content_type: str, body: str) -> list[str]:
        """A refusal's form is the same for all kinds; its text is one of those that were seen."""
        if status == 404:
            # Of an entity, or of a path that leads nowhere.
            return [] if not body or body.startswith("RESTEASY003210: ") else ["404 with a body"]
        if status in (401, 403) and content_type.startswith("text/html"):
            return []
        root = request_documents.parse(body.encode())
        detail = detail_of(root)
        form = _outline(root)
        if form not in ("fault(detail,reason)", "action(fault(detail,reason),status)"):
            return [f"a refusal as {form}"]
        return [] if detail in self.texts else [f"refusal: {detail}"]


def _members(element: ElementTree.Element) -> set[str]:
    links = {f"link {child.get('rel')}" for child in element if child.tag == "link"}
    return (
        {f"@{name}" for name in element.attrib}
        | {child.tag for child in element if child.tag != "link"}
        | links
    )


def _outline(element: ElementTree.Element) -> str:
    """Return the tags of a document, each once at its place, in the order of the alphabet."""
    inner = sorted({_outline(child) for child in element})
    return f"{element.tag}({','.join(inner)})" if inner else element.tag


def _search(text: str) -> str:
    general = _PAGE.sub("page {}", _VALUE.sub("={}", " ".join(text.split())))
    return _ALTERNATIVES.sub(r"\1", general)
