# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""XML-RPC as the engine's Java client speaks it (Apache xmlrpc-client 3.1.3). Pure.

Strings come untyped, nulls as `<ex:nil/>`. An answer has neither `<nil/>` nor `<i8>`: either would
make the engine keep all hosts. No DTD, no entity, and everything bounded.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Optional
from xml.parsers import expat

from ovirt_tcp_plugin import errors

# More than a cluster has; each of 36 characters between two tags.
MAX_HOSTS = 10_000
# Of a call without its hosts, and of one in any other shape than the engine's.
MAX_OTHER_SIZE = 8192
MAX_REQUEST_SIZE = MAX_HOSTS * len("<value></value>" + 36 * "-") + MAX_OTHER_SIZE
MAX_DEPTH = 64
# Of what is given to expat, which calls Python for each: no peer may make that dear.
MAX_TAGS = 500

_WHAT = "XML-RPC call"

# What the engine sends: names and ids in untyped strings, all in one line. A list of thousands of
# hosts is only taken in this shape; whatever is around it goes to expat if it has another one.
_PLAIN = "[-0-9A-Za-z_.]*"
_PLAIN_CHARACTERS = f"-_.{string.ascii_letters}{string.digits}".encode("ascii")
_MEMBERS = f"((?:<member><name>{_PLAIN}</name><value>{_PLAIN}</value></member>)*)"
_BEFORE_HOSTS = re.compile(
    r'<\?xml version="1\.0" encoding="UTF-8"\?>'
    r'<methodCall xmlns:ex="http://ws\.apache\.org/xmlrpc/namespaces/extensions">'
    r"<methodName>runFilters</methodName><params>"
    f"<param><value><array><data>((?:<value>{_PLAIN}</value>)*)</data></array></value></param>"
    r"<param><value><array><data>".encode("ascii")
)
_AFTER_HOSTS = re.compile(
    r"</data></array></value></param>"
    f"<param><value>({_PLAIN})</value></param>"
    f"<param><value>(?:<struct/>|<struct>{_MEMBERS}</struct>)</value></param>"
    "</params></methodCall>\n?".encode("ascii")
)
_LIST_END = b"</data>"
_UNTYPED = ("<value>", "</value>")
_TYPED = ("<value><string>", "</string></value>")
_ID_CHARACTERS = f"-{string.ascii_letters}{string.digits}".encode("ascii")
_SCALARS = frozenset(
    {"string", "int", "i4", "i8", "double", "boolean", "dateTime.iso8601", "base64", "ex:i8"}
)
_NULLS = frozenset({"nil", "ex:nil"})


@dataclasses.dataclass(frozen=True)
class Call:
    """A method and its parameters: texts, None, lists and dicts. Numbers stay texts; none of our
    methods needs one."""

    method: str
    parameters: tuple[Any, ...]


def parse_call(untrusted: bytes) -> Call:
    """Return the call in a request.

    Raises:
        InvalidMessage: too long, too many hosts, not XML, with a DTD, nested too deeply, or not a
            methodCall; or long and in another shape than the engine's.
    """
    if len(untrusted) > MAX_REQUEST_SIZE:
        raise errors.InvalidMessage(_WHAT, f"longer than {MAX_REQUEST_SIZE} bytes")
    return _usual(untrusted) or _any(untrusted)


def _usual(untrusted: bytes) -> Optional[Call]:
    """Return the call if its hosts have the shape of every day; the same as expat would read."""
    before = _BEFORE_HOSTS.match(untrusted, 0, MAX_OTHER_SIZE)
    if before is None:
        return None
    hosts_begin = before.end()
    # From behind, where only the VM and the properties follow.
    hosts_end = untrusted.rfind(_LIST_END, hosts_begin)
    if hosts_end < 0:
        return None
    hosts = _rows(untrusted[hosts_begin:hosts_end])
    if hosts is None:
        return None
    if len(hosts) > MAX_HOSTS:
        raise errors.InvalidMessage(_WHAT, f"more than {MAX_HOSTS} hosts")
    after = _match_after_hosts(untrusted, hosts_end)
    if after is None:
        without_hosts = untrusted[:hosts_begin] + untrusted[hosts_end:]
        return _with_hosts(_any(without_hosts), hosts)
    units = _split(before.group(1), *_UNTYPED)
    vm_id = after.group(1).decode("ascii")
    properties = _properties(after.group(2) or b"")
    return Call("runFilters", (units, hosts, vm_id, properties))


def _match_after_hosts(untrusted: bytes, hosts_end: int) -> Optional[re.Match[bytes]]:
    """Return where VM and properties are; None if they are long, or in another shape."""
    if len(untrusted) - hosts_end > MAX_OTHER_SIZE:
        return None
    return _AFTER_HOSTS.fullmatch(untrusted, hosts_end)


def _with_hosts(call: Call, hosts: list[str]) -> Call:
    """Return a call of `runFilters` with these hosts instead of its own."""
    units, _, *others = call.parameters
    return Call(call.method, (units, hosts, *others))


def _properties(members: bytes) -> dict[str, str]:
    pairs = _split(members, "<member><name>", "</value></member>")
    return dict(pair.split("</name><value>") for pair in pairs)


def _rows(untrusted: bytes) -> Optional[list[str]]:
    """Return the texts of a row of untyped values, None if there is anything else in it."""
    if not untrusted:
        return []
    if not untrusted.startswith(b"<value>") or not untrusted.endswith(b"</value>"):
        return None
    if not untrusted.isascii():
        return None
    rows = _split(untrusted, *_UNTYPED)
    # Looked at all at once: a look at each would take as long as everything else.
    everything = "".join(rows).encode("ascii")
    has_others = everything.translate(None, _PLAIN_CHARACTERS)
    return None if has_others else rows


def _split(row: bytes, opening: str, closing: str) -> list[str]:
    """Return what stands between the tags of a row of ASCII."""
    if not row:
        return []
    inner = row.decode("ascii")[len(opening) : -len(closing)]
    return inner.split(closing + opening)


def _any(untrusted: bytes) -> Call:
    if len(untrusted) > MAX_OTHER_SIZE or untrusted.count(b"<") > MAX_TAGS:
        raise errors.InvalidMessage(_WHAT, "long, and in another shape than the engine's")
    reader = _Reader()
    try:
        reader.parser.Parse(untrusted, True)
    except (expat.ExpatError, ValueError) as e:
        raise errors.InvalidMessage(_WHAT, f"not well-formed: {e}") from e
    if reader.method is None or reader.stack:
        raise errors.InvalidMessage(_WHAT, "no methodCall")
    return Call(reader.method, tuple(reader.parameters))


def encode_answer(value: Any) -> bytes:
    """Return a methodResponse with one value of texts, whole numbers below 2**31, lists and
    dicts."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><methodResponse><params><param>'
        f"{_encode(value)}</param></params></methodResponse>"
    ).encode("utf-8", "replace")


def _encode(value: Any) -> str:
    if isinstance(value, Mapping):
        members = [_encode_member(name, member) for name, member in value.items()]
        return f"<value><struct>{''.join(members)}</struct></value>"
    if isinstance(value, str):
        return _text(value).join(_TYPED)
    if isinstance(value, Sequence):
        return f"<value><array><data>{_encode_items(value)}</data></array></value>"
    if type(value) is int and -(2**31) <= value < 2**31:
        return f"<value><int>{value}</int></value>"
    raise TypeError(f"{type(value).__name__} has no place in an answer")


def _encode_member(name: str, value: Any) -> str:
    return f"<member><name>{_text(name)}</name>{_encode(value)}</member>"


def _encode_items(values: Sequence[Any]) -> str:
    texts = _encode_texts(values)
    if texts is not None:
        return texts
    return "".join(map(_encode, values))


def _encode_texts(values: Sequence[Any]) -> Optional[str]:
    """Return a row of texts, None if others are among them: host ids as they are, without a look at
    each."""
    try:
        everything = "".join(values)
    except TypeError:
        return None
    if not values:
        return ""
    if not _are_ids(everything):
        values = list(map(_text, values))
    opening, closing = _TYPED
    between = closing + opening
    return f"{opening}{between.join(values)}{closing}"


def _are_ids(joined: str) -> bool:
    """Return whether texts that were joined have no other characters than host ids have."""
    if not joined.isascii():
        return False
    return not joined.encode("ascii").translate(None, _ID_CHARACTERS)


def _text(value: str) -> str:
    """Return text for XML; characters that XML cannot have would make the engine keep all hosts."""
    if value.isascii() and value.isprintable():  # every host id
        return _escape(value)
    return _escape("".join(c if _is_legal(c) else "?" for c in value))


def _is_legal(character: str) -> bool:
    """XML 1.0, 2.2, without the planes beyond the first."""
    if character in "\t\n\r":
        return True
    return " " <= character < "\ud800" or "\ue000" <= character < "\ufffe"


def _escape(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class _Reader:
    """Collects one call from the events of expat."""

    def __init__(self) -> None:
        self.method: Optional[str] = None
        self.parameters: list[Any] = []
        self.stack: list[str] = []
        self._containers: list[Any] = []
        self._names: list[str] = []
        self._text: list[str] = []
        self._value: Any = None
        self._typed = False
        self.parser = self._make_parser()

    def _make_parser(self) -> expat.XMLParserType:
        # Named here, so that the caller's declaration does not choose among Python's codecs.
        parser = expat.ParserCreate("UTF-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        return parser

    def _refuse(self, *_: object) -> None:
        raise errors.InvalidMessage(_WHAT, "a document type or entity")

    def _start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        self.stack.append(tag)
        if len(self.stack) > MAX_DEPTH:
            raise errors.InvalidMessage(_WHAT, "too deep")
        self._text.clear()
        if tag == "value":
            self._typed = False
        elif tag == "array":
            self._containers.append([])
        elif tag == "struct":
            self._containers.append({})

    def _end(self, tag: str) -> None:
        self.stack.pop()
        text = "".join(self._text)
        if tag in _SCALARS:
            self._set(text)
        elif tag in _NULLS:
            self._set(None)
        elif tag in ("array", "struct"):
            self._set(self._containers.pop())
        elif tag == "value":
            self._take(self._value if self._typed else text)
        elif tag == "name":
            self._names.append(text)
        elif tag == "member":
            self._end_member()
        elif tag == "methodName":
            self.method = text.strip()
        self._text.clear()

    def _take(self, value: Any) -> None:
        parent = self.stack[-1] if self.stack else ""
        if parent == "param":
            self.parameters.append(value)
        elif parent == "data":
            self._innermost(list, "a value").append(value)
        elif parent != "member":
            raise errors.InvalidMessage(_WHAT, "a value in a wrong place")
        self._set(value)

    def _set(self, value: Any) -> None:
        self._value = value
        self._typed = True

    def _end_member(self) -> None:
        struct = self._innermost(dict, "a member")
        if not self._names:
            raise errors.InvalidMessage(_WHAT, "a member without a name")
        struct[self._names.pop()] = self._value

    def _innermost(self, kind: type, what: str) -> Any:
        """Return the array or struct that is open. Raises InvalidMessage: none of that kind is."""
        container = self._containers[-1] if self._containers else None
        if not isinstance(container, kind):
            raise errors.InvalidMessage(_WHAT, f"{what} in a wrong place")
        return container
