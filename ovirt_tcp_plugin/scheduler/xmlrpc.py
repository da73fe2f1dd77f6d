# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""XML-RPC as the engine's Java client speaks it (Apache xmlrpc-client 3.1.3). Pure.

Strings come untyped, nulls as `<ex:nil/>`. An answer has neither `<nil/>` nor `<i8>`: either would make the engine
keep all hosts. No DTD, no entity, and everything bounded.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Optional
from xml.parsers import expat
from xml.sax.saxutils import escape

from ovirt_tcp_plugin import errors

# 10,000 hosts of 36 characters take half of this.
MAX_REQUEST_SIZE = 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 50_000

_WHAT = "XML-RPC call"

# The very bytes that the engine sends, where nothing in them is special: names and ids in untyped strings. Everything else
# goes to expat, which calls Python for each tag and takes five times as long.
_PLAIN = "[-0-9A-Za-z_.]*"
_PLAIN_CHARACTERS = f"-_.{string.ascii_letters}{string.digits}".encode("ascii")
_LIST = f"<param><value><array><data>((?:<value>{_PLAIN}</value>)*)</data></array></value></param>"
_MEMBERS = f"<struct>((?:<member><name>{_PLAIN}</name><value>{_PLAIN}</value></member>)*)</struct>"
_USUAL = re.compile(
    r'<\?xml version="1\.0" encoding="UTF-8"\?>'
    r'<methodCall xmlns:ex="http://ws\.apache\.org/xmlrpc/namespaces/extensions">'
    r"<methodName>runFilters</methodName><params>"
    # The hosts are looked at by themselves: they are nearly all of it.
    f"{_LIST}<param><value><array><data>(.*)</data></array></value></param><param><value>({_PLAIN})</value></param>"
    f"<param><value>(?:<struct/>|{_MEMBERS})</value></param></params></methodCall>\n?".encode("ascii"),
    re.DOTALL,
)
_UNTYPED = ("<value>", "</value>")
_TYPED = ("<value><string>", "</string></value>")
_ID_CHARACTERS = f"-{string.ascii_letters}{string.digits}".encode("ascii")
_SCALARS = frozenset({"string", "int", "i4", "i8", "double", "boolean", "dateTime.iso8601", "base64", "ex:i8"})
_NULLS = frozenset({"nil", "ex:nil"})


@dataclasses.dataclass(frozen=True)
class Call:
    """A method and its parameters: texts, None, lists and dicts. Numbers stay texts; none of our methods needs one."""

    method: str
    parameters: tuple[Any, ...]


def parse_call(untrusted: bytes) -> Call:
    """Return the call in a request.

    Raises:
        InvalidMessage: too long, not XML, with a DTD, nested too deeply, or not a methodCall.
    """
    if len(untrusted) > MAX_REQUEST_SIZE:
        raise errors.InvalidMessage(_WHAT, f"longer than {MAX_REQUEST_SIZE} bytes")
    return _usual(untrusted) or _any(untrusted)


def _usual(untrusted: bytes) -> Optional[Call]:
    """Return the call if it has the shape of every day; the same as `_any` would."""
    found = _USUAL.fullmatch(untrusted)
    if found is None:
        return None
    names, hosts, vm_id, members = found.groups(b"")
    if hosts and not (hosts.startswith(b"<value>") and hosts.endswith(b"</value>")):
        return None
    if hosts[7:-8].replace(b"</value><value>", b"").translate(None, _PLAIN_CHARACTERS):
        return None
    pairs = _split(members, "<member><name>", "</value></member>")
    properties = dict(one.split("</name><value>") for one in pairs)
    return Call("runFilters", (_split(names, *_UNTYPED), _split(hosts, *_UNTYPED), vm_id.decode("ascii"), properties))


def _split(row: bytes, opening: str, closing: str) -> list[str]:
    """Return what stands between the tags of a row of ASCII."""
    return row.decode("ascii")[len(opening) : -len(closing)].split(closing + opening) if row else []


def _any(untrusted: bytes) -> Call:
    reader = _Reader()
    try:
        reader.parser.Parse(untrusted, True)
    except (expat.ExpatError, ValueError) as e:
        raise errors.InvalidMessage(_WHAT, f"not well-formed: {e}") from e
    if reader.method is None or reader.stack:
        raise errors.InvalidMessage(_WHAT, "no methodCall")
    return Call(reader.method, tuple(reader.parameters))


def encode_answer(value: Any) -> bytes:
    """Return a methodResponse with one value of texts, whole numbers below 2**31, lists and dicts."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><methodResponse><params><param>'
        f"{_encode(value)}</param></params></methodResponse>"
    ).encode("utf-8", "replace")


def _encode(value: Any) -> str:
    if isinstance(value, Mapping):
        members = "".join(f"<member><name>{_text(k)}</name>{_encode(v)}</member>" for k, v in value.items())
        return f"<value><struct>{members}</struct></value>"
    if isinstance(value, str):
        return _text(value).join(_TYPED)
    if isinstance(value, Sequence):
        if value and set(map(type, value)) == {str}:
            return f"<value><array><data>{_encode_texts(value)}</data></array></value>"
        return f"<value><array><data>{''.join(_encode(one) for one in value)}</data></array></value>"
    if isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
        return f"<value><int>{value}</int></value>"
    raise TypeError(f"{type(value).__name__} has no place in an answer")


def _encode_texts(values: Sequence[str]) -> str:
    """Return a row of texts: host ids as they are, without a look at each."""
    everything = "".join(values)
    if not everything.isascii() or everything.encode("ascii").translate(None, _ID_CHARACTERS):
        values = list(map(_text, values))
    opening, closing = _TYPED
    return f"{opening}{(closing + opening).join(values)}{closing}"


def _text(value: str) -> str:
    """Return text for XML; characters that XML cannot have would make the engine keep all hosts."""
    if value.isascii() and value.isprintable():  # every host id
        return escape(value)
    legal = "".join(c if c in "\t\n\r" or " " <= c < "\ud800" or "\ue000" <= c < "\ufffe" else "?" for c in value)
    return escape(legal)


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
        self._count = 0
        # Named here, so that the caller's declaration does not choose among Python's codecs.
        self.parser = expat.ParserCreate("UTF-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *_: object) -> None:
        raise errors.InvalidMessage(_WHAT, "a document type or entity")

    def _start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        self.stack.append(tag)
        self._count += 1
        if len(self.stack) > MAX_DEPTH or self._count > MAX_VALUES:
            raise errors.InvalidMessage(_WHAT, "too deep or too many values")
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
            self._value, self._typed = text, True
        elif tag in _NULLS:
            self._value, self._typed = None, True
        elif tag in ("array", "struct"):
            self._value, self._typed = self._containers.pop(), True
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
        elif parent == "data" and self._containers and isinstance(self._containers[-1], list):
            self._containers[-1].append(value)
        elif parent != "member":
            raise errors.InvalidMessage(_WHAT, "a value in a wrong place")
        self._value, self._typed = value, True

    def _end_member(self) -> None:
        if not self._names or not self._containers or not isinstance(self._containers[-1], dict):
            raise errors.InvalidMessage(_WHAT, "a member in a wrong place")
        self._containers[-1][self._names.pop()] = self._value
