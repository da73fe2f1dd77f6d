# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Several addresses of one attestation server, asked in turn until one answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import https
from ovirt_tcp_plugin.broker.clock import Clock
from ovirt_tcp_plugin.broker.oat_source import OatSource
from ovirt_tcp_plugin.broker.ovirt_tcp_source import MAX_ANSWER_SIZE, OvirtTcpSource
from ovirt_tcp_plugin.broker.settings import Verifier
from ovirt_tcp_plugin.broker.sources import Answer, Source
from ovirt_tcp_plugin.messages import oat

OWN_SERVER_MARGIN_S = 15


class Failover:
    """Asks the address that answered last, then the others. Raises what the last one raised."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._preferred = 0

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name. Raises Unavailable when no address gave any."""
        last = errors.Unavailable("the attestation server", "no address is configured")
        for step in range(len(self._sources)):
            chosen = (self._preferred + step) % len(self._sources)
            try:
                answers = self._sources[chosen].ask(names)
            except errors.Unavailable as e:
                last = e
                continue
            self._preferred = chosen
            return answers
        raise last


def from_settings(options: Verifier, clock: Clock) -> Source:
    """Return the source that the configuration describes."""
    make: Callable[[str], Source]
    if options.kind == "ovirt-tcp":
        # It keeps to wait_s; what is on top is for the way and a busy server.
        deadline_s = min(options.deadline_s, options.wait_s + OWN_SERVER_MARGIN_S)
        bounds = https.Bounds(options.connect_timeout_s, deadline_s, MAX_ANSWER_SIZE)
        wait_ms = int(options.wait_s * 1000)

        def make(url: str) -> Source:
            return OvirtTcpSource(url, options.token_file, options.ca_file, wait_ms, bounds, clock)
    else:
        bounds = https.Bounds(options.connect_timeout_s, options.deadline_s, oat.MAX_ANSWER_SIZE)

        def make(url: str) -> Source:
            return OatSource(
                options.kind, url, options.path, options.auth_blob, options.ca_file, bounds, clock
            )

    return Failover([make(url) for url in options.urls])
