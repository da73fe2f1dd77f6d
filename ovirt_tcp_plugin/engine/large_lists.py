# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads the engine's lists of VMs and hosts without the SDK's readers, of which there may be many.

For each of them the SDK makes a hundred objects, one by one in Python: a minute and more for
100,000 VMs, in which other threads wait, and hundreds of MiB. The request stays the SDK's, and so
do its faults and its parser; but elements that concern nobody here are passed over (`VmReader`,
`HostReader`).
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional, TypeVar

from ovirtsdk4 import services, xml
from ovirtsdk4.reader import Reader

from ovirt_tcp_plugin.placement.inventory import (
    HOSTED_ENGINE_ORIGINS,
    MARK_PROPERTY,
    Host,
    Vm,
)

# `ovirtsdk4.xml.XmlReader`, which is written in C.
XmlReader = Any

Row = TypeVar("Row")


@dataclasses.dataclass(frozen=True)
class ListedHost:
    """A host, and whether its agent would start the engine's VM."""

    host: Host
    takes_engine: bool

    @property
    def id(self) -> str:
        """The host's id."""
        return self.host.id


class _Vms(services.VmsService):  # type: ignore[misc]
    """The SDK's service of all VMs, whose lists hold values of this package."""

    def _internal_read_body(self, response: Any) -> Any:
        if response.code != 200:
            return super()._internal_read_body(response)
        return _rows(self._connection, response, "vm", _vm)


class _Hosts(services.HostsService):  # type: ignore[misc]
    """The same for hosts."""

    def _internal_read_body(self, response: Any) -> Any:
        if response.code != 200:
            return super()._internal_read_body(response)
        return _rows(self._connection, response, "host", _host)


def list_vms(system: Any, search: str, size: int) -> Sequence[Vm]:
    """Return a page of VMs, without the marks of their next-run configurations.

    By the SDK's system service; for `Sdk.call`. Raises what the SDK raises, anything for a document
    that is not what it should be.
    """
    service = system.vms_service()
    rows: Sequence[Vm] = _Vms(service._connection, service._path).list(search=search, max=size)
    return rows


def list_hosts(
    system: Any,
    all_content: bool,
    search: Optional[str] = None,
    size: Optional[int] = None,
) -> Sequence[ListedHost]:
    """Return all hosts, or a page of them, in the same way.

    Args:
        all_content: with what tells whether they take the engine's VM, of which the engine asks its
            database for each.
    """
    service = system.hosts_service()
    rows: Sequence[ListedHost] = _Hosts(service._connection, service._path).list(
        search=search, max=size, all_content=all_content
    )
    return rows


def _rows(connection: Any, response: Any, tag: str, read: Callable[[XmlReader], Row]) -> list[Row]:
    connection.check_xml_content_type(response)
    reader = xml.XmlReader(io.BytesIO(response.body))
    reader.forward()
    if reader.node_name() != f"{tag}s":
        raise ValueError(f"a document {reader.node_name()} instead of a list of {tag}s")
    return list(_each(reader, tag, read))


def _vm(reader: XmlReader) -> Vm:
    uid = _id(reader)
    values = _values(reader, _VM)
    return Vm(
        id=uid,
        name=values.get("name") or uid,
        cluster_id=values.get("cluster", ""),
        status=values.get("status") or "",
        host_id=values.get("host", ""),
        marked=values.get("custom_properties", False),
        hosted_engine=values.get("origin") in HOSTED_ENGINE_ORIGINS,
        next_run=values.get("next_run_configuration_exists", False),
    )


def _host(reader: XmlReader) -> ListedHost:
    uid = _id(reader)
    values = _values(reader, _HOST)
    host = Host(
        id=uid,
        name=values.get("name") or uid,
        address=values.get("address") or "",
        cluster_id=values.get("cluster", ""),
        status=values.get("status") or "",
        status_detail=values.get("status_detail") or "",
    )
    return ListedHost(host, values.get("hosted_engine", False))


def _takes_engine(reader: XmlReader) -> bool:
    """Return whether a host's agent would start the engine's VM.

    By the engine's own rule (`HostedEngineHelper.haveHostsAvailableForHE`).
    """
    agent = _values(reader, _AGENT)
    if agent.get("local_maintenance"):
        return False
    is_active = agent.get("configured") and agent.get("active")
    return bool(is_active) and int(agent.get("score") or 0) > 0


def _is_marked(reader: XmlReader) -> bool:
    mark: Optional[str] = None
    for values in _each(reader, "custom_property", lambda inner: _values(inner, _PROPERTY)):
        if values.get("name") == MARK_PROPERTY:
            mark = values.get("value")
    return mark == "true"


# What is read of an element. Each function is called at the start of it, and goes past its end.


def _each(reader: XmlReader, tag: str, read: Callable[[XmlReader], Row]) -> Iterator[Row]:
    """Yield what a function returns of each child of this name."""
    for child in _children(reader):
        if child == tag:
            yield read(reader)
        else:
            reader.next_element()


def _values(reader: XmlReader, members: Mapping[str, Callable[[XmlReader], Any]]) -> dict[str, Any]:
    """Return what functions return of the children that they are named for."""
    values: dict[str, Any] = {}
    for child in _children(reader):
        read = members.get(child)
        if read is None:
            reader.next_element()
        else:
            values[child] = read(reader)
    return values


def _children(reader: XmlReader) -> Iterator[str]:
    """Yield the names of all children; whoever takes one goes past its end."""
    is_empty = reader.empty_element()
    reader.read()
    if is_empty:
        return
    while reader.forward():
        yield reader.node_name()
    reader.read()


def _text(reader: XmlReader) -> Optional[str]:
    text: Optional[str] = reader.read_element()
    return text


def _boolean(reader: XmlReader) -> bool:
    return bool(Reader.read_boolean(reader))


def _linked_id(reader: XmlReader) -> str:
    """Return the id of a linked object, empty for one that was removed."""
    uid: Optional[str] = reader.get_attribute("id")
    reader.next_element()
    return uid or ""


def _id(reader: XmlReader) -> str:
    uid: Optional[str] = reader.get_attribute("id")
    if not uid:
        raise ValueError(f"a {reader.node_name()} without an id")
    return uid


_PROPERTY = {"name": _text, "value": _text}
_AGENT = {
    "active": _boolean,
    "configured": _boolean,
    "local_maintenance": _boolean,
    "score": _text,
}
_VM = {
    "name": _text,
    "cluster": _linked_id,
    "status": _text,
    "host": _linked_id,
    "custom_properties": _is_marked,
    "origin": _text,
    "next_run_configuration_exists": _boolean,
}
_HOST = {
    "name": _text,
    "address": _text,
    "cluster": _linked_id,
    "status": _text,
    "status_detail": _text,
    "hosted_engine": _takes_engine,
}
