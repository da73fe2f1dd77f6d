# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Asks broker, filterd and attestation servers, with every wait bounded and nothing changed.

Every function raises Unavailable when there is no answer or none that makes sense, unless it says otherwise.
"""

from __future__ import annotations

import email.utils
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, Optional

from ovirt_tcp_plugin import errors, https
from ovirt_tcp_plugin.admin.doctor.observations import BrokerHost, BrokerView, ServerView
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.verifiers.failover import OK
from ovirt_tcp_plugin.broker.verifiers.openattestation import OAT_PATHS, OAT_REFUSED
from ovirt_tcp_plugin.messages import json_fields
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.remote import Remote

# An attestation server that is asked about no host has nothing to wait for.
SERVER_WITHIN_S = 10.0
MAX_ANSWER_SIZE = 4 * 1024 * 1024
MAX_HOSTS = 10_000
MAX_POOLS = 1_000


def broker(remote: Remote) -> BrokerView:
    """Return what the broker says. Raises Refused, too, when it does not take our token."""
    told, listed = remote.call("GET", "/v1/hosts"), remote.call("GET", "/v1/pools")
    try:
        hosts = [_broker_host(one) for one in json_fields.items(told, "hosts", MAX_HOSTS)]
        pools = [json_fields.members(one, "pool") for one in json_fields.items(listed, "pools", MAX_POOLS)]
        held = {str(one["name"]): tuple(map(str, json_fields.items(one, "held", MAX_HOSTS))) for one in pools}
        tripped = {str(one["name"]) for one in pools if one["guard_tripped"]}
        return BrokerView(
            {host.id: host for host in hosts},
            {name: names for name, names in held.items() if name in tripped},
            bool(told["servers_answer"]),
        )
    except (errors.InvalidMessage, KeyError) as e:
        raise errors.Unavailable("the broker", f"its answer makes no sense: {e}") from e


def server(options: settings.VerifierOptions, url: str) -> ServerView:
    """Return what an attestation server is like, asked about no host. Raises InvalidConfig only: no token to show."""
    try:
        context = ssl.create_default_context(cafile=str(options.ca_file))
    except (OSError, ssl.SSLError) as e:
        return ServerView(url, fault=f"{options.ca_file} cannot be read: {https.cause(e)}", bad_certificate=True)
    try:
        ends_s = _certificate_ends(context, url, options.connect_timeout_s)
    except ssl.SSLCertVerificationError as e:
        return ServerView(url, fault=e.verify_message, bad_certificate=True)
    except (OSError, ValueError) as e:
        return ServerView(url, fault=https.cause(e))
    path, headers, message = _question(options)
    bounds = https.Bounds(options.connect_timeout_s, SERVER_WITHIN_S, MAX_ANSWER_SIZE)
    try:
        reply = https.post("it", url.rstrip("/") + path, message, headers, options.ca_file, bounds)
    except errors.Unavailable as e:
        return ServerView(url, fault=e.reason)
    good = reply.status in (OK if options.kind == "ovirt-tcp" else OK | OAT_REFUSED)
    return ServerView(url, status=reply.status, good=good, certificate_ends_s=ends_s, ahead_s=_ahead(reply.date))


def addresses(url: str) -> frozenset[str]:
    """Return the host name of a URL in lower case, and the addresses that it has here; without a name service, no more."""
    name = (urllib.parse.urlsplit(url).hostname or "").lower().rstrip(".")
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    return frozenset({name} | {str(one[4][0]).partition("%")[0] for one in found}) - {""}


def _broker_host(untrusted: object) -> BrokerHost:
    one = json_fields.members(untrusted, "host")
    trusted = one["level"] == Level.TRUSTED.value
    return BrokerHost(str(one["id"]), str(one["name"]), trusted, str(one["code"]), bool(one["quarantined"]))


def _certificate_ends(context: ssl.SSLContext, url: str, within_s: float) -> float:
    """Return the seconds until a server's certificate ends. Raises OSError: no connection, or no good certificate."""
    parts = urllib.parse.urlsplit(url)
    place = parts.hostname or "", parts.port or 443
    with socket.create_connection(place, within_s) as plain, context.wrap_socket(plain, server_hostname=place[0]) as secured:
        certificate = secured.getpeercert() or {}
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()


def _question(options: settings.VerifierOptions) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
    """Return path, headers and message of a question about no host. Raises InvalidConfig."""
    if options.kind != "ovirt-tcp":
        headers = {"x-auth-blob": options.auth_blob} if options.auth_blob else {}
        return (options.path or OAT_PATHS[options.kind]) + "/PollHosts", headers, {"hosts": [], "count": 0}
    try:
        token = options.token_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise errors.InvalidConfig(str(options.token_file), [f"the verifier's token cannot be read: {e}"]) from e
    return "/v1/results", {"Authorization": f"Bearer {token}"}, {"hosts": [], "max_age_ms": None, "wait_ms": 0}


def _ahead(date: str) -> Optional[float]:
    """Return how far a Date header is ahead of this machine's clock, in seconds; None if there is no telling."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
