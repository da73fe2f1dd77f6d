# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Answers to actions, and refusals."""

from __future__ import annotations

import uuid
from typing import Optional

from ovirt_tcp_plugin.lab.engine import shapes
from ovirt_tcp_plugin.lab.engine.elements import append_texts, element, entity, link
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.shapes import API
from ovirt_tcp_plugin.lab.engine.xml_text import Element, Filled


def fault(error: Fault, action: bool) -> Element:
    """Return a fault; that of an action sits inside it."""
    inner = element("fault", detail=error.detail, reason=error.reason)
    if not action:
        return inner
    root = Element("action")
    root.append(inner)
    append_texts(root, status="failed")
    return root


def complete(
    subject: Optional[Element] = None, request: Optional[Element] = None, job: bool = False
) -> Element:
    """Return an action that is complete.

    Args:
        subject: what it was done with.
        request: the client's document: what that said comes back.
        job: whether the engine made a job of it.
    """
    root = Element("action")
    kind = "" if subject is None else subject.tag
    is_async = None if request is None else request.findtext("async")
    reason = None if request is None else request.findtext("reason")
    if is_async is not None:
        append_texts(root, **{"async": is_async})
    if subject is not None and kind == "host":
        root.append(subject)
    if job:
        root.append(link("job", str(uuid.uuid4()), "jobs"))
    if reason is not None:
        append_texts(root, reason=reason)
    append_texts(root, status="complete")
    if subject is not None and kind == "vm":
        root.append(subject)
    return root


def bare_host(uid: str) -> Element:
    """Return a host as an action's answer has it: what can be done with it, and what it has."""
    return Filled("host", shapes.BARE_HOST, {"href": f"{API}/hosts/{uid}", "id": uid}, {})


def bare_vm(uid: str) -> Element:
    """Return a VM as an action's answer has it."""
    return Filled("vm", shapes.BARE_VM, {"href": f"{API}/vms/{uid}", "id": uid}, {})


def echo(request: Element) -> Element:
    """Return an entity as the client sent it, with its address."""
    root = entity(request.tag, request.get("id", ""), f"{request.tag}s")
    root.extend(request)
    return root
