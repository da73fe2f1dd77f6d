# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The REST API: which path does what.

Handlers run in threads, because a start waits for the external scheduler. All others have the
tables to themselves.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin.lab.engine import audit_log, request_documents
from ovirt_tcp_plugin.lab.engine.documents import actions, root
from ovirt_tcp_plugin.lab.engine.errors import Bare, Fault
from ovirt_tcp_plugin.lab.engine.hosts import HostLifecycle
from ovirt_tcp_plugin.lab.engine.model import EngineUser, Model, new_id
from ovirt_tcp_plugin.lab.engine.permits import needed
from ovirt_tcp_plugin.lab.engine.rest.access import AccessPaths
from ovirt_tcp_plugin.lab.engine.rest.affinity import AffinityGroupPaths
from ovirt_tcp_plugin.lab.engine.rest.clusters import ClusterPaths
from ovirt_tcp_plugin.lab.engine.rest.events import EventPaths
from ovirt_tcp_plugin.lab.engine.rest.hosts import HostPaths
from ovirt_tcp_plugin.lab.engine.rest.labels import AffinityLabelPaths
from ovirt_tcp_plugin.lab.engine.rest.options import OptionPaths
from ovirt_tcp_plugin.lab.engine.rest.policies import PolicyPaths
from ovirt_tcp_plugin.lab.engine.rest.routes import Handler, Query, Routes
from ovirt_tcp_plugin.lab.engine.rest.vms import VmPaths
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling
from ovirt_tcp_plugin.lab.engine.shapes import API
from ovirt_tcp_plugin.lab.engine.vms import VmLifecycle
from ovirt_tcp_plugin.lab.engine.xml_text import Element

_ACTION = re.compile("(hosts|vms)/[^/]+/[^/]+")
# A POST there is an edit of the whole, and is answered like an edit.
_EDIT = re.compile(
    "schedulingpolicies/[^/]+/[a-z]+"
    "|clusters/[^/]+/affinitygroups/[^/]+/vms"
    "|affinitylabels/[^/]+/(hosts|vms)"
)
_NO_RESOURCE = "RESTEASY003210: Could not find resource for full path: https://localhost"
_NOT_AUTHORIZED = "[User is not authorized to perform this action.]"


@dataclasses.dataclass(frozen=True)
class _Route:
    verb: str
    path: str
    pattern: re.Pattern[str]
    handler: Handler
    waits: bool


class Rest:
    """The API over the tables. `answer` is the only door; it returns HTTP status and document."""

    def __init__(
        self,
        tables: Model,
        scheduling: Scheduling,
        hosts: HostLifecycle,
        vms: VmLifecycle,
        vm_properties: Mapping[str, str],
        attestation_server: str,
    ) -> None:
        self._model = tables
        self.calls: collections.Counter[str] = collections.Counter()
        self._routes: list[_Route] = []
        self._add_routes(ClusterPaths(tables, attestation_server).routes)
        self._add_routes(AffinityGroupPaths(tables).routes)
        self._add_routes(AffinityLabelPaths(tables).routes)
        host_paths = HostPaths(tables, scheduling, hosts)
        self._add_routes(host_paths.routes)
        self._add_routes(host_paths.waiting_routes, waits=True)
        vm_paths = VmPaths(tables, vms, vm_properties)
        self._add_routes(vm_paths.routes)
        self._add_routes(vm_paths.waiting_routes, waits=True)
        self._add_routes(EventPaths(tables).routes)
        self._add_routes(PolicyPaths(tables).routes)
        self._add_routes(AccessPaths(tables).routes)
        self._add_routes(OptionPaths(vm_properties).routes)

    def _add_routes(self, routes: Routes, waits: bool = False) -> None:
        for name, handler in routes.items():
            verb, _, path = name.partition(" ")
            pattern = re.compile(path.replace("{}", "([^/]+)"))
            self._routes.append(_Route(verb, path, pattern, handler, waits))

    def answer(
        self, user: EngineUser, verb: str, path: str, query: Query, body: bytes
    ) -> tuple[int, Optional[Element]]:
        """Return status and document of a request below /ovirt-engine/api.

        A path that is not found has no document.

        Raises:
            Bare: refused with a text.
        """
        acting = audit_log.ACTING.set((user.id, new_id()))
        try:
            document = self._handle(user, verb, path, query, body)
        except Fault as e:
            if e.status == 404:
                return e.status, None
            is_action = verb == "POST" and _ACTION.fullmatch(path) is not None
            return e.status, actions.fault(e, is_action)
        finally:
            audit_log.ACTING.reset(acting)
        is_edit = document.tag == "action" or _EDIT.fullmatch(path) is not None
        status = 201 if verb == "POST" and not is_edit else 200
        return status, document

    def _handle(self, user: EngineUser, verb: str, path: str, query: Query, body: bytes) -> Element:
        if verb == "GET" and not path:
            with self._model.lock:
                return root.api(user, self._model)
        route, ids = self._find_route(verb, path)
        self.calls[f"{verb} {route.path}"] += 1
        document = request_documents.parse(body) if body else Element("none")
        if needed(verb, route.path, path, document) - self._model.permits(user):
            raise Fault(403, "Operation Failed", _NOT_AUTHORIZED)
        lock = contextlib.nullcontext() if route.waits else self._model.lock
        with lock:
            return route.handler(query, document, *ids)

    def _find_route(self, verb: str, path: str) -> tuple[_Route, Sequence[str]]:
        """Return the route of a path, and the ids in it. Raises Bare (404)."""
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match is not None and verb == route.verb:
                return route, match.groups()
        raise Bare(404, f"{_NO_RESOURCE}{API}/v4/{path}")
