# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Asks broker and attestation servers, with every wait bounded and nothing changed."""

from __future__ import annotations

import dataclasses
import email.utils
import http
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from cryptography import x509

from ovirt_tcp_plugin import errors, https
from ovirt_tcp_plugin.admin.doctor.observations import BrokerHost, BrokerView, ServerView
from ovirt_tcp_plugin.broker.settings import OVIRT_TCP, VerifierOptions
from ovirt_tcp_plugin.broker.verifiers import choose, ovirt_tcp
from ovirt_tcp_plugin.messages import json_fields, public_keys
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.pools import Pool
from ovirt_tcp_plugin.remote import Remote

# The answers are bounded by their length; these only keep nonsense out.
MAX_HOSTS = 100_000
MAX_POOLS = 20_000
MAX_BROKERS = 1_000
MAX_UPKEEP_SIZE = 16 * 1024 * 1024
MAX_DUTIES = 100
UPKEEP_WITHIN_S = 10.0

_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def broker(remote: Remote) -> BrokerView:
    """Return what the broker says.

    Raises:
        Unavailable: it does not answer, or its answer cannot be parsed.
        Refused: it does not take our token.
        InvalidConfig: the token cannot be read.
    """
    answer = remote.call("GET", "/v1/hosts")
    pools_answer = remote.call("GET", "/v1/pools")
    try:
        return _broker_view(answer, pools_answer)
    except (errors.InvalidMessage, KeyError, ValueError) as e:
        raise errors.Unavailable("the broker", f"its answer cannot be parsed: {e}") from e


def _broker_view(
    untrusted_hosts: Mapping[str, object], untrusted_pools: Mapping[str, object]
) -> BrokerView:
    """Return what two answers of the broker say. Raises InvalidMessage, KeyError, ValueError."""
    hosts: dict[str, BrokerHost] = {}
    for item in json_fields.items(untrusted_hosts, "hosts", MAX_HOSTS):
        host = _broker_host(item)
        hosts[host.id] = host
    held: dict[str, tuple[str, ...]] = {}
    observed: dict[str, tuple[str, ...]] = {}
    pools: dict[str, Pool] = {}
    for item in json_fields.items(untrusted_pools, "pools", MAX_POOLS):
        members = json_fields.members(item, "pool")
        pool = _pool(members)
        pools[pool.cluster_id] = pool
        host_names = tuple(map(str, json_fields.items(members, "held", MAX_HOSTS)))
        if members["guard_tripped"]:
            held[pool.name] = host_names
        # A broker of an older release knows no observation.
        elif members.get("observation"):
            observed[pool.name] = host_names
    servers_answer = bool(untrusted_hosts["servers_answer"])
    view = BrokerView(hosts, held, observed, servers_answer, pools)
    if "charge" not in untrusted_pools:
        # A broker of an older release knows of no other.
        return view
    charge = json_fields.members(untrusted_pools["charge"], "charge")
    others = tuple(map(str, json_fields.items(charge, "others", MAX_BROKERS)))
    machine = str(charge["machine"])
    return dataclasses.replace(view, machine=machine, acts=bool(charge["acts"]), others=others)


def _pool(members: Mapping[str, object]) -> Pool:
    return Pool(str(members["cluster_id"]), str(members["name"]), Scope(members["scope"]))


def server(options: VerifierOptions, url: str) -> ServerView:
    """Return how an attestation server answers a question about no host.

    Raises:
        InvalidConfig: the token file cannot be read. What is wrong with the server is in the view.
    """
    try:
        context = ssl.create_default_context(cafile=str(options.ca_file))
    except (OSError, ssl.SSLError) as e:
        fault = f"{options.ca_file} cannot be read: {https.cause(e)}"
        return ServerView(url, fault=fault, bad_certificate=True)
    try:
        ends_s = _certificate_ends_s(context, url, options.connect_timeout_s)
    except ssl.SSLCertVerificationError as e:
        return ServerView(url, fault=e.verify_message, bad_certificate=True)
    except (OSError, ValueError) as e:
        return ServerView(url, fault=https.cause(e))
    try:
        probe = choose.probe(options, url)
    except errors.Unavailable as e:
        return ServerView(url, fault=e.reason)
    return ServerView(
        url,
        status=probe.status,
        good=probe.good,
        certificate_ends_s=ends_s,
        authorities_end_s=_authorities_end_s(options.ca_file),
        duties=_duties(options, url) if probe.good else (),
        ahead_s=_ahead_s(probe.date),
    )


def addresses(url: str) -> frozenset[str]:
    """Return the host name of a URL in lower case, and the addresses that it has here.

    Without a name service, no more than the name.
    """
    name = (urllib.parse.urlsplit(url).hostname or "").lower().rstrip(".")
    if not name:
        return frozenset()
    names = {name}
    try:
        records = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset(names)
    for *_, socket_address in records:
        # An address of a link has its interface behind it.
        names.add(str(socket_address[0]).partition("%")[0])
    return frozenset(names)


def _broker_host(untrusted: object) -> BrokerHost:
    host = json_fields.members(untrusted, "host")
    return BrokerHost(
        id=str(host["id"]),
        name=str(host["name"]),
        trusted=host["level"] == Level.TRUSTED.value,
        code=str(host["code"]),
        quarantined=bool(host["quarantined"]),
        # A broker of an older release does not say it.
        stays_inside=bool(host.get("stays_inside")),
    )


def _certificate_ends_s(context: ssl.SSLContext, url: str, within_s: float) -> float:
    """Return the seconds until a server's certificate ends.

    Raises:
        OSError: no connection, or no good certificate.
        ValueError: the URL has no port that is a number.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    plain = socket.create_connection((host, parts.port or 443), within_s)
    with plain, context.wrap_socket(plain, server_hostname=host) as secured:
        certificate = secured.getpeercert() or {}
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()


def _authorities_end_s(ca_file: Path) -> Optional[float]:
    """Return the seconds until the last authority in a file ends. None if it cannot be read."""
    try:
        texts = _CERTIFICATE.findall(ca_file.read_bytes())
        certificates = [x509.load_pem_x509_certificate(text) for text in texts]
        ends = [public_keys.life(certificate)[1].timestamp() for certificate in certificates]
    except (OSError, *public_keys.UNREADABLE):
        return None
    return max(ends) - time.time() if ends else None


def _duties(options: VerifierOptions, url: str) -> tuple[tuple[str, str], ...]:
    """Return what our server says is to be done in time; a server of another kind says nothing."""
    if options.kind != OVIRT_TCP:
        return ()
    servers = options.ovirt_tcp()
    headers = {"Authorization": f"Bearer {ovirt_tcp.read_token(servers.token_file)}"}
    peer = f"attestation server {url}"
    request = https.json_request(peer, "GET", f"{url}/v1/upkeep", None, headers, options.ca_file)
    bounds = https.Bounds(options.connect_timeout_s, UPKEEP_WITHIN_S, MAX_UPKEEP_SIZE)
    try:
        reply = https.exchange(request, bounds)
        if reply.status != http.HTTPStatus.OK:  # a server of an earlier release
            return ()
        members = json_fields.parse_members(reply.body, "upkeep", MAX_UPKEEP_SIZE)
        items = json_fields.items(members, "duties", MAX_DUTIES)
        return tuple(_duty(item) for item in items)
    except (errors.Unavailable, errors.InvalidMessage):
        return ()  # the probe has just shown that it answers; doctor is run again


def _duty(untrusted: object) -> tuple[str, str]:
    members = json_fields.members(untrusted, "duty")
    text = json_fields.text(members, "text", 8000)
    next_step = json_fields.text(members, "next_step", 1000)
    return text, next_step


def _ahead_s(date: str) -> Optional[float]:
    """Return how far a Date header is ahead of this machine's clock, in seconds.

    None if it is no date.
    """
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
