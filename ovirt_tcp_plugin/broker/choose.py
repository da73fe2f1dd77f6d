# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which code asks the attestation servers: the one place that goes by their kind."""

from __future__ import annotations

from ovirt_tcp_plugin.broker import openattestation, sources
from ovirt_tcp_plugin.broker.answer import Source
from ovirt_tcp_plugin.broker.servers import Probe
from ovirt_tcp_plugin.broker.settings import OVIRT_TCP, VerifierOptions
from ovirt_tcp_plugin.clock import Clock


def make(options: VerifierOptions, clock: Clock) -> Source:
    """Return the source that the configuration names.

    Raises:
        InvalidConfig: the token file cannot be read.
    """
    if options.kind == OVIRT_TCP:
        servers = options.ovirt_tcp()
        return sources.OvirtTcpSource(servers, sources.read_token(servers.token_file), clock)
    return openattestation.OatSource(options.openattestation(), clock)


def probe(options: VerifierOptions, url: str) -> Probe:
    """Return how one server of the configuration answers a question about no host.

    Raises:
        Unavailable: it does not answer.
        InvalidConfig: the token file cannot be read.
    """
    if options.kind == OVIRT_TCP:
        return sources.probe(options.ovirt_tcp(), url)
    return openattestation.probe(options.openattestation(), url)
