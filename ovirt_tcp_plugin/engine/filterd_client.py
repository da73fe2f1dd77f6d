# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Asks filterd as the engine does: by XML-RPC over HTTP, and within the engine's own limits."""

from __future__ import annotations

import http.client
import re
import socket
import xml.parsers.expat
import xmlrpc.client
from collections.abc import Mapping, Sequence
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.placement.filter_unit import NAME

# ExternalSchedulerConnectionTimeout, and ExternalSchedulerResponseTimeout as `setup` sets it.
CONNECT_WITHIN_S = 0.1
ANSWER_WITHIN_S = 3.0
MAX_ANSWER_SIZE = 4 * 1024 * 1024
# A VM that nobody knows, which counts as one that needs trust.
NO_VM = "00000000-0000-0000-0000-000000000000"

_PYTHONS_START = "<?xml version='1.0'?><methodCall>"
_ENGINES_START = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<methodCall xmlns:ex="http://ws.apache.org/xmlrpc/namespaces/extensions">'
)

# What `xmlrpc.client.loads` raises.
_MALFORMED = (
    xml.parsers.expat.ExpatError,
    xmlrpc.client.Error,
    ValueError,
    TypeError,
    KeyError,
)


def discover(address: str, port: int) -> Mapping[str, Sequence[str]]:
    """Return the names of units by kind that filterd offers to the engine. Raises Unavailable."""
    answer = _call(address, port, "discover")
    if not isinstance(answer, dict):
        raise errors.Unavailable("filterd", "its answer to `discover` is not a structure")
    names: dict[str, list[str]] = {}
    for kind, units in answer.items():
        if not isinstance(units, dict):
            raise errors.Unavailable("filterd", "its answer to `discover` has no units by name")
        names[str(kind)] = [str(name) for name in units]
    return names


def run_filters(address: str, port: int, host_ids: Sequence[str]) -> frozenset[str]:
    """Return the hosts on which filterd would let a VM run that it does not know.

    Raises:
        Unavailable: it does not answer, or its answer has no list of hosts.
    """
    answer = _call(address, port, "runFilters", [NAME], list(host_ids), NO_VM, {})
    if not isinstance(answer, dict) or not isinstance(answer.get("result"), list):
        raise errors.Unavailable("filterd", "its answer to `runFilters` has no list of hosts")
    return frozenset(map(str, answer["result"]))


def _call(address: str, port: int, method: str, *arguments: Any) -> Any:
    """Return filterd's answer to a call, as the engine would get it. Raises Unavailable."""
    content = _post(address, port, _as_the_engine(method, arguments))
    if b"<!" in content:
        # Entities: whoever holds the port may be any user of this machine.
        raise errors.Unavailable("filterd", "its answer has a document type")
    try:
        (value,), _ = xmlrpc.client.loads(content)
    except _MALFORMED as e:
        fault = "its answer cannot be parsed"
        raise errors.Unavailable(f"filterd at {address}:{port}", fault) from e
    return value


def _as_the_engine(method: str, arguments: tuple[Any, ...]) -> str:
    """Return a call as the engine's client writes it: filterd reads no long list in another
    shape."""
    # Texts have no such tags: the characters of tags are escaped in them.
    content = re.sub("\n|</?string>", "", xmlrpc.client.dumps(arguments, method))
    return content.replace(_PYTHONS_START, _ENGINES_START)


def _post(address: str, port: int, body: str) -> bytes:
    """Return the body of an answer, at most MAX_ANSWER_SIZE of it. Raises Unavailable."""
    connection = http.client.HTTPConnection(address, port)
    try:
        connection.sock = socket.create_connection((address, port), CONNECT_WITHIN_S)
        connection.sock.settimeout(ANSWER_WITHIN_S)
        connection.request("POST", "/", body, {"Content-Type": "text/xml"})
        answer = connection.getresponse()
        content = answer.read(MAX_ANSWER_SIZE)
    except (OSError, http.client.HTTPException) as e:
        fault = str(e) or type(e).__name__
        raise errors.Unavailable(f"filterd at {address}:{port}", fault) from e
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise errors.Unavailable("filterd", f"it answers with status {answer.status}")
    return content
