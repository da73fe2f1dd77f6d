# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The REST API: which path does what. Handlers run in threads, because a start waits for the
external scheduler."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Mapping
from typing import Optional

from ovirt_tcp_plugin.lab.engine import audit_log, documents
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Bare, Fault
from ovirt_tcp_plugin.lab.engine.hosts import Hosts
from ovirt_tcp_plugin.lab.engine.model import Model, User, new_id
from ovirt_tcp_plugin.lab.engine.permits import needed
from ovirt_tcp_plugin.lab.engine.rest.access import AccessPaths
from ovirt_tcp_plugin.lab.engine.rest.affinity import AffinityPaths
from ovirt_tcp_plugin.lab.engine.rest.clusters import ClusterPaths
from ovirt_tcp_plugin.lab.engine.rest.events import EventPaths
from ovirt_tcp_plugin.lab.engine.rest.hosts import HostPaths
from ovirt_tcp_plugin.lab.engine.rest.options import OptionPaths
from ovirt_tcp_plugin.lab.engine.rest.policies import PolicyPaths
from ovirt_tcp_plugin.lab.engine.rest.vms import VmPaths
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling
from ovirt_tcp_plugin.lab.engine.vms import Vms

_ACTION = re.compile("(hosts|vms)/[^/]+/[^/]+")
# A POST there is an edit of the whole, and is answered like one.
_EDIT = re.compile(
    "schedulingpolicies/[^/]+/[a-z]+|clusters/[^/]+/affinitygroups/[^/]+/vms|affinitylabels/[^/]+/(hosts|vms)"
)


_NO_RESOURCE = "RESTEASY003210: Could not find resource for full path: https://localhost"


class Rest:
    """The API over the tables. `answer` is the one door; it returns HTTP status and document."""

    def __init__(
        self,
        tables: Model,
        scheduling: Scheduling,
        hosts: Hosts,
        vms: Vms,
        vm_properties: Mapping[str, str],
        attestation_server: str,
    ) -> None:
        self._model = tables
        self.calls: collections.Counter[str] = collections.Counter()
        routes: dict[str, Callable[..., Element]] = {
            **ClusterPaths(tables, attestation_server).routes,
            **AffinityPaths(tables).routes,
            **HostPaths(tables, scheduling, hosts).routes,
            **VmPaths(tables, vms, vm_properties).routes,
            **EventPaths(tables).routes,
            **PolicyPaths(tables).routes,
            **AccessPaths(tables).routes,
            **OptionPaths(vm_properties).routes,
        }
        # `{}` stands for an id.
        self._routes = [
            (verb, path, re.compile(path.replace("{}", "([^/]+)")), handler)
            for (verb, _, path), handler in (
                (route.partition(" "), handler) for route, handler in routes.items()
            )
        ]

    def answer(
        self, user: User, verb: str, path: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, Optional[Element]]:
        """Return status and document of a request below /ovirt-engine/api. What is not found has no
        document.

        Raises:
            Bare: refused with a text.
        """
        acting = audit_log.ACTING.set((user.id, new_id()))
        try:
            document = self._handle(user, verb, path, query, body)
        except Fault as e:
            is_action = verb == "POST" and _ACTION.fullmatch(path) is not None
            return e.status, None if e.status == 404 else documents.fault(e, is_action)
        finally:
            audit_log.ACTING.reset(acting)
        created = verb == "POST" and document.tag != "action" and _EDIT.fullmatch(path) is None
        return (201 if created else 200), document

    def _handle(
        self, user: User, verb: str, path: str, query: Mapping[str, str], body: bytes
    ) -> Element:
        if (verb, path) == ("GET", ""):
            with self._model.lock:
                return documents.api(user, self._model)
        for route_verb, name, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is not None and verb == route_verb:
                self.calls[f"{verb} {name}"] += 1
                given = documents.parse(body) if body else Element("none")
                if needed(verb, name, path, given) - self._model.permits(user):
                    raise Fault(
                        403, "Operation Failed", "[User is not authorized to perform this action.]"
                    )
                return handler(query, given, *match.groups())
        raise Bare(404, f"{_NO_RESOURCE}{documents.API}/v4/{path}")
