# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Asks broker, filterd and attestation servers, with every wait bounded and nothing changed.

Every function raises Unavailable when there is no answer or none that makes sense, unless it says otherwise.
"""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import ssl
import time
import urllib.parse
import xml.parsers.expat
import xmlrpc.client
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import https, settings
from ovirt_tcp_plugin.broker.doctor.seen import BrokerHost, BrokerView, ServerView
from ovirt_tcp_plugin.broker.inventory import UNIT_NAME
from ovirt_tcp_plugin.broker.sources import OAT_PATHS, OAT_REFUSED, OK
from ovirt_tcp_plugin.messages import fields
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.remote import Remote

# ExternalSchedulerConnectionTimeout, and ExternalSchedulerResponseTimeout as `setup` sets it.
CONNECT_WITHIN_S = 0.1
ANSWER_WITHIN_S = 3.0
MAX_ANSWER_SIZE = 4 * 1024 * 1024
# An attestation server that is asked about no host has nothing to wait for.
SERVER_WITHIN_S = 10.0
MAX_HOSTS = 10_000
MAX_POOLS = 1_000
_PYTHONS_START = "<?xml version='1.0'?><methodCall>"
_ENGINES_START = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<methodCall xmlns:ex="http://ws.apache.org/xmlrpc/namespaces/extensions">'
)
# A VM that nobody knows, which counts as one that needs trust.
NO_VM = "00000000-0000-0000-0000-000000000000"


def broker(remote: Remote) -> BrokerView:
    """Return what the broker says. Raises Refused, too, when it does not take our token."""
    told, listed = remote.call("GET", "/v1/hosts"), remote.call("GET", "/v1/pools")
    try:
        hosts = [_broker_host(one) for one in fields.items(told, "hosts", MAX_HOSTS)]
        pools = [fields.members(one, "pool") for one in fields.items(listed, "pools", MAX_POOLS)]
        held = {str(one["name"]): tuple(map(str, fields.items(one, "held", MAX_HOSTS))) for one in pools}
        tripped = {str(one["name"]) for one in pools if one["guard_tripped"]}
        return BrokerView(
            {host.id: host for host in hosts},
            {name: names for name, names in held.items() if name in tripped},
            bool(told["servers_answer"]),
        )
    except (errors.InvalidMessage, KeyError) as e:
        raise errors.Unavailable("the broker", f"its answer makes no sense: {e}") from e


def discover(address: str, port: int) -> Mapping[str, Sequence[str]]:
    """Return the names of units by kind that filterd offers to the engine."""
    found = _call(address, port, "discover")
    if not isinstance(found, dict) or not all(isinstance(units, dict) for units in found.values()):
        raise errors.Unavailable("filterd", "its answer to `discover` makes no sense")
    return {str(kind): [str(name) for name in units] for kind, units in found.items()}


def run_filters(address: str, port: int, host_ids: Sequence[str]) -> frozenset[str]:
    """Return the hosts on which filterd would let run a VM that it does not know."""
    found = _call(address, port, "runFilters", [UNIT_NAME], list(host_ids), NO_VM, {})
    if not isinstance(found, dict) or not isinstance(found.get("result"), list):
        raise errors.Unavailable("filterd", "its answer to `runFilters` makes no sense")
    return frozenset(str(one) for one in found["result"])


def server(options: settings.Verifier, url: str) -> ServerView:
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
    one = fields.members(untrusted, "host")
    trusted = one["level"] == Level.TRUSTED.value
    return BrokerHost(str(one["id"]), str(one["name"]), trusted, str(one["code"]), bool(one["quarantined"]))


def _call(address: str, port: int, method: str, *arguments: Any) -> Any:
    """Return filterd's answer to a call, as the engine would get it."""
    connection = http.client.HTTPConnection(address, port)
    try:
        connection.sock = socket.create_connection((address, port), CONNECT_WITHIN_S)
        connection.sock.settimeout(ANSWER_WITHIN_S)
        connection.request("POST", "/", _as_the_engine(method, arguments), {"Content-Type": "text/xml"})
        answer = connection.getresponse()
        content = answer.read(MAX_ANSWER_SIZE)
        if answer.status != http.client.OK:
            raise errors.Unavailable("filterd", f"it answers with status {answer.status}")
        if b"<!" in content:
            # Entities: whoever holds the port may be any user of this machine.
            raise errors.Unavailable("filterd", "its answer has a document type")
        (value,), _ = xmlrpc.client.loads(content)
    except (OSError, http.client.HTTPException) as e:
        raise errors.Unavailable(f"filterd at {address}:{port}", str(e) or type(e).__name__) from e
    except (xml.parsers.expat.ExpatError, xmlrpc.client.Error, ValueError, TypeError, KeyError) as e:
        raise errors.Unavailable(f"filterd at {address}:{port}", "its answer cannot be parsed") from e
    finally:
        connection.close()
    return value


def _as_the_engine(method: str, arguments: tuple[Any, ...]) -> str:
    """Return a call in the shape of the engine's client: filterd reads no long list in another one."""
    # Texts have no such tags: the characters of tags are escaped in them.
    content = re.sub("\n|</?string>", "", xmlrpc.client.dumps(arguments, method))
    return content.replace(_PYTHONS_START, _ENGINES_START)


def _certificate_ends(context: ssl.SSLContext, url: str, within_s: float) -> float:
    """Return the seconds until a server's certificate ends. Raises OSError: no connection, or no good certificate."""
    parts = urllib.parse.urlsplit(url)
    place = parts.hostname or "", parts.port or 443
    with socket.create_connection(place, within_s) as plain, context.wrap_socket(plain, server_hostname=place[0]) as secured:
        certificate = secured.getpeercert() or {}
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()


def _question(options: settings.Verifier) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
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
