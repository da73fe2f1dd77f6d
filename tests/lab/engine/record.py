# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Make `real_engine.json` from what a real engine answered, by hand.

It has only structure, nothing that identifies anything.

python -m tests.lab.engine.record EXCHANGES.jsonl PROBE.txt DIRECTORY

The first has whole exchanges, a JSON object a line: method, path, request, status, response,
response_headers. The second has an outcome a line of requests that went wrong, `... 400 fault
REASON | DETAIL`. The directory has answers to GET as `*.http` files and the requests in INDEX.txt:
file, request, status line, separated by tabs.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ovirt_tcp_plugin.lab.engine import request_documents
from tests.lab.engine import structure

_FAULT = re.compile(r" fault [^|]*\| (\[?.*)$")


def exchanges(path: Path) -> Iterator[tuple[str, str, str, int, str, str]]:
    """Yield method, path, body, status, content type and answer."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        kind = row["response_headers"].get("Content-Type", "")
        yield row["method"], row["path"], row["request"], row["status"], kind, row["response"]


def answers(directory: Path) -> Iterator[tuple[str, str, str, int, str, str]]:
    """Yield the same of answers in files."""
    for line in (directory / "INDEX.txt").read_text(encoding="utf-8").splitlines():
        name, request, status = line.split("\t")
        verb, _, path = request.partition(" ")
        if not path.startswith("/"):
            continue
        head, _, body = (
            (directory / name).read_text(encoding="utf-8").replace("\r\n", "\n").partition("\n\n")
        )
        kind = re.search(r"^Content-Type: (.*)$", head, re.MULTILINE)
        yield verb, path, "", int(status.split()[1]), kind[1] if kind else "", body


def main() -> None:
    """Write the file."""
    rows = [*exchanges(Path(sys.argv[1])), *answers(Path(sys.argv[3]))]
    probe = Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
    texts = {structure.variable(match[1]) for match in map(_FAULT.search, probe) if match}
    kinds: dict[str, dict[str, Any]] = {}
    nodes: dict[str, structure.Node] = {}
    for verb, path, document, status, content_type, body in rows:
        if not body.lstrip().startswith("<?xml"):
            continue
        root = request_documents.parse(body.encode())
        if status >= 400:
            texts.add(structure.detail_of(root))
            continue
        kind = structure.kind_of(verb, path.partition("?")[0], structure.query_of(path), document)
        kinds[kind] = {"status": status, "content_type": content_type, "root": root.tag}
        is_new = kind not in nodes
        nodes.setdefault(kind, structure.Node()).add(root, is_new)
    for kind, node in nodes.items():
        kinds[kind]["node"] = node.plain()
    # One kind a line, for whoever reads what changed.
    lines = ",\n".join(f"{json.dumps(kind)}: {json.dumps(kinds[kind])}" for kind in sorted(kinds))
    listed = ",\n".join(json.dumps(text) for text in sorted(texts))
    structure.RECORDED.write_text(
        f'{{"kinds": {{\n{lines}\n}},\n"texts": [\n{listed}\n]}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    main()
