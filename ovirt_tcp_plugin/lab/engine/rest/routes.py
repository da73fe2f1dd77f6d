# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the modules of paths have in common: routes to handlers, and how a query is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine.xml_text import Element

Query = Mapping[str, str]
# Called with the query, the client's document (`<none/>` without one) and the ids of the path. It
# has the tables' lock unless it waits for the external scheduler.
Handler = Callable[..., Element]
# By verb and path: "GET hosts/{}", where `{}` is an id and the rest a regular expression.
Routes = dict[str, Handler]


def follows(query: Query, link: str) -> bool:
    """Return whether a client wants to have inline what is behind a link (`follow`)."""
    return link in query.get("follow", "").split(",")


def all_content(query: Query) -> bool:
    """Return whether a client wants what takes the engine longer to tell (`all_content`)."""
    return query.get("all_content") == "true"
