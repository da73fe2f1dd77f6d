# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""All routes, and the HTTPS server that answers on them."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import tornado.netutil
import tornado.web

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import evidence, oat
from ovirt_tcp_plugin.verifier.web import (
    agents,
    enrolment_tokens,
    openattestation,
    reference_values,
    results,
    whitelist,
)
from ovirt_tcp_plugin.verifier.web.access import CallerKind
from ovirt_tcp_plugin.verifier.web.handler import Handler, HandlerContext
from ovirt_tcp_plugin.verifier.web.limits import HttpServer
from ovirt_tcp_plugin.verifier.web.refusal_log import LibraryLog

log = logging.getLogger("verifier.web")

MAX_BODY_SIZE = max(evidence.MAX_EVIDENCE_SIZE, oat.MAX_POLL_SIZE)
# A body has to arrive within this time; evidence is 100 KiB at most on real machines.
BODY_WITHIN_S = 20
IDLE_CONNECTION_S = 120
MAX_HEADER_SIZE = 16 * 1024


class Nowhere(Handler):
    """Every other path."""

    callers = frozenset({CallerKind.ANYONE})

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            self.answer_error(404, "NotFound", "there is nothing under this path")


# Looked through one after the other: what every agent asks all the time comes first.
ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/v1/challenge", agents.NextChallenge),
    (r"/v1/evidence", agents.SubmitEvidence),
    (r"/v1/health", results.Health),
    (r"/metrics", results.MetricsText),
    (r"/v1/enrolment", agents.BeginEnrolment),
    (r"/v1/enrolment/proof", agents.FinishEnrolment),
    (r"/v1/enrolment/tokens", enrolment_tokens.EnrolmentTokens),
    (r"/v1/certificate", agents.RenewCertificate),
    (r"/v1/authority", agents.Authorities),
    (r"/v1/results", results.Results),
    (r"/v1/results/void", results.Void),
    (r"/v1/hosts", results.Hosts),
    (r"/v1/upkeep", results.Upkeep),
    (r"/v1/hosts/([^/]+)", results.HostOfName),
    (r"/v1/hosts/([^/]+)/boot", results.BootOfHost),
    (r"/v1/reference-values", reference_values.ReferenceValues),
    (r"/v1/reference-preview", reference_values.ReferencePreview),
    (r"/v1/reference-values/([^/]+)", reference_values.ReferenceSetOfName),
    (r"/v1/reference-values/([^/]+)/(add|activate|withdraw)", reference_values.ReferenceChange),
    (r"/AttestationService/resources/PollHosts", openattestation.PollHosts),
    (r"/AttestationService/resources/hosts/trust", openattestation.HostTrust),
    (r"/OpenAttestationWebServices/V1.0/PollHosts", openattestation.PollHosts),
    (r"/OpenAttestationWebServices/V1.0/Version", openattestation.Version),
    (r"/AttestationService/resources/hosts", whitelist.RegisteredHosts),
    (r"/WLMService/resources/oem", whitelist.Oems),
    (r"/WLMService/resources/os", whitelist.OperatingSystems),
    (r"/WLMService/resources/mles", whitelist.Mles),
    (r"/WLMService/resources/mles/manifest", whitelist.MleManifest),
    (r"/WLMService/resources/mles/whitelist/pcr", whitelist.MlePcrs),
    (
        r"/(?:AttestationService|OpenAttestation\w*|WLMService|His\w*)/.*",
        openattestation.NotOffered,
    ),
]


def listen(address: str, port: int, shared: bool = False) -> list[socket.socket]:
    """Return listening sockets, one for each family of addresses.

    Port 0 is one that the kernel chooses.

    Args:
        shared: whether other processes of this user may listen there, too; each gets a share of the
            connections.

    Raises:
        Unavailable: the address or port cannot be had.
    """
    try:
        return tornado.netutil.bind_sockets(port, address, backlog=1024, reuse_port=shared)
    except OSError as e:
        raise errors.Unavailable(f"port {port} of {address or 'all addresses'}", str(e)) from e


def serve(
    context: HandlerContext, tls: ssl.SSLContext, sockets: Optional[Sequence[socket.socket]] = None
) -> tuple[HttpServer, int]:
    """Return a server and its port.

    Without sockets that listen already, it listens where the options say.

    Raises:
        Unavailable: the address or port cannot be had.
    """
    sockets = sockets or listen(context.options.address, context.options.port)
    routes = [(path, handler, {"context": context}) for path, handler in ROUTES]
    application = tornado.web.Application(
        routes,
        default_handler_class=Nowhere,
        default_handler_args={"context": context},
        log_function=_log_request,
    )
    server = HttpServer(
        application,
        ssl_options=tls,
        max_body_size=MAX_BODY_SIZE,
        max_buffer_size=MAX_BODY_SIZE + MAX_HEADER_SIZE,
        max_header_size=MAX_HEADER_SIZE,
        idle_connection_timeout=IDLE_CONNECTION_S,
        per_second=context.options.connections_per_second,
        max_unknown=context.options.unknown_connections,
        max_of_peer=context.options.peer_connections,
        body_within_s=BODY_WITHIN_S,
    )
    context.server = server
    logging.getLogger("tornado.general").addFilter(LibraryLog(context.refusals))
    server.add_sockets(sockets)
    return server, int(sockets[0].getsockname()[1])


def tls_context(certificate: Path, key: Path, client_authority: bytes) -> ssl.SSLContext:
    """Return TLS 1.2 or later.

    A client may show a certificate of our own authority, and no other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=client_authority.decode("ascii"))
    # Optional here, because tokens and enrolment come without one; the routes of agents demand it.
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _log_request(handler: tornado.web.RequestHandler) -> None:
    request = handler.request
    log.debug(
        "request path=%a peer=%s status=%d", request.path, request.remote_ip, handler.get_status()
    )
