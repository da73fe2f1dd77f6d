# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's PollHosts, as the releases 1.0 to 2.x speak it.

Its field names stand nowhere else.

Source: OpenAttestation 1.6, `ReqAttestationBean` and `RespAttestationBean`; Jersey's "mapped" JSON
writes an array of one element as the element.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields

MAX_HOSTS = 10000
MAX_NAME_LENGTH = 255
MAX_POLL_SIZE = 4 * 1024 * 1024
# Names, and what a name that is none may have of commas and brackets.
MAX_POLL_VALUES = 2 * MAX_HOSTS
# With pcr_values and analysis_details a real answer stays below 10 KiB a host.
MAX_ANSWER_SIZE = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Poll:
    """A PollHosts request.

    Attributes:
        hosts: names as asked; any text.
        time_threshold_ms: the age up to which an earlier verdict will do.
        pcrs: indices of the PCRs whose values are wanted.
    """

    hosts: tuple[str, ...]
    time_threshold_ms: Optional[int] = None
    pcrs: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class PolledHost:
    """One host of a PollHosts answer, as untrusted as the peer.

    Attributes:
        host_name: as the server echoes it.
        trust_lvl: as the server spells it, lower-cased; any text.
        vtime: the moment of the verdict, None when it is missing or unreadable.
        pcr_values: PCRs with the values (hex) that the host proved; not read from answers.
    """

    host_name: str
    trust_lvl: str
    vtime: Optional[datetime.datetime]
    pcr_values: tuple[tuple[int, str], ...] = ()


def encode_poll(poll: Poll) -> dict[str, Any]:
    """Return the JSON object of a request."""
    encoded: dict[str, Any] = {"hosts": list(poll.hosts)}
    if poll.time_threshold_ms is not None:
        encoded["timeThreshold"] = poll.time_threshold_ms
    return encoded


def decode_poll(untrusted: bytes) -> Poll:
    """Return the request in a message; unknown members such as Nova's `count` are ignored.

    `hosts` may be one text instead of a list (OAT 2.x). A timeThreshold of 0 counts as absent. A
    text that is no host's name is for the answer to call unknown: it must not fail the others.

    Raises:
        InvalidMessage: not JSON (oVirt posts `{"hosts":]}` when it has no host), no host, a name
            that is not text.
    """
    members = json_fields.parse_members(
        untrusted, "PollHosts request", MAX_POLL_SIZE, MAX_POLL_VALUES
    )
    return Poll(
        hosts=_host_names(members),
        time_threshold_ms=_threshold(members.get("timeThreshold")),
        pcrs=_pcrs(members.get("PCRmask")),
    )


def encode_trust(host_name: str, trusted: bool) -> dict[str, Any]:
    """Return the answer to `hosts/trust` of 2.x.

    Our verdict is on the whole boot, so BIOS and VMM share it.
    """
    return {"hostname": host_name, "trust": {"bios": trusted, "vmm": trusted, "location": False}}


def encode_fault(code: int, message: str) -> dict[str, Any]:
    """Return an OpenAttestationResponseFault: of what was asked."""
    return {"error_code": code, "error_message": message, "detail": message}


def encode_attestation_fault(code: int, message: str) -> dict[str, Any]:
    """Return an AttestationResponseFault: of the server that was to attest."""
    return {"code": code, "name": "AttestationServersFault", "message": message, "detail": message}


def encode_named_fault(name: str, message: str) -> dict[str, Any]:
    """Return a fault of 2.x, whose codes are names."""
    return {"error_code": name, "error_message": message}


def encode_answer(hosts: Iterable[PolledHost]) -> dict[str, Any]:
    """Return the JSON object of an answer; `vtime` as xsd:dateTime with milliseconds and zone."""
    return {"hosts": encode_hosts(hosts)}


def encode_hosts(hosts: Iterable[PolledHost]) -> list[dict[str, Any]]:
    """Return the JSON array of an answer's hosts, or of a part of them."""
    return [_encode_host(host) for host in hosts]


def decode_answer(untrusted: bytes) -> tuple[PolledHost, ...]:
    """Return the hosts of an answer; entries without a name or level are left out.

    Raises:
        InvalidMessage: not JSON, no `hosts` member, or too many.
    """
    members = json_fields.parse_members(untrusted, "PollHosts answer", MAX_ANSWER_SIZE)
    entries = _one_or_more(members, dict)
    decoded = [_decode_host(entry) for entry in entries]
    return tuple(host for host in decoded if host is not None)


def _one_or_more(members: Mapping[str, object], kind: type) -> Sequence[object]:
    """Return the member `hosts`, an array that may be written as its only element."""
    hosts = members.get("hosts")
    if isinstance(hosts, kind):
        return [hosts]
    return json_fields.items(members, "hosts", MAX_HOSTS)


def _host_names(members: Mapping[str, object]) -> tuple[str, ...]:
    names = _one_or_more(members, str)
    if not names:
        raise errors.InvalidMessage("PollHosts request", "no host is named")
    if not all(isinstance(name, str) for name in names):
        raise errors.InvalidMessage("PollHosts request", "a host name is not a text")
    return tuple(str(name) for name in names)


def _threshold(untrusted: object) -> Optional[int]:
    if untrusted is None:
        return None
    threshold = _whole_number(untrusted)
    if threshold is None or not 0 <= threshold <= 2**53:
        reason = "timeThreshold is not a number of milliseconds"
        raise errors.InvalidMessage("PollHosts request", reason)
    return threshold or None


def _whole_number(untrusted: object) -> Optional[int]:
    """Return a number, None if it is none. Jersey also takes one that is written as text."""
    if isinstance(untrusted, bool) or not isinstance(untrusted, (int, str)):
        return None
    try:
        return int(untrusted)
    except ValueError:
        return None


def _pcrs(mask: object) -> tuple[int, ...]:
    """Return the PCRs of a PCRmask: hex, of which the right-most bit is PCR 0."""
    if mask in (None, ""):
        return ()
    if not isinstance(mask, str) or not re.fullmatch("[0-9A-Fa-f]{1,6}", mask):
        raise errors.InvalidMessage("PollHosts request", "PCRmask is not one to six hex digits")
    return tuple(index for index in range(24) if int(mask, 16) >> index & 1)


def _encode_host(host: PolledHost) -> dict[str, Any]:
    encoded: dict[str, Any] = {"host_name": host.host_name, "trust_lvl": host.trust_lvl}
    if host.vtime is not None:
        encoded["vtime"] = host.vtime.isoformat(timespec="milliseconds")
    if host.pcr_values:
        encoded["pcr_values"] = [
            {"number": str(index), "value": value} for index, value in host.pcr_values
        ]
    return encoded


def _decode_host(untrusted: object) -> Optional[PolledHost]:
    if not isinstance(untrusted, dict):
        return None
    host_name = untrusted.get("host_name")
    trust_lvl = untrusted.get("trust_lvl")
    if not isinstance(host_name, str) or not isinstance(trust_lvl, str):
        return None
    if len(host_name) > MAX_NAME_LENGTH or len(trust_lvl) > MAX_NAME_LENGTH:
        return None
    return PolledHost(host_name, trust_lvl.lower(), parse_vtime(untrusted.get("vtime")))


def parse_vtime(untrusted: object) -> Optional[datetime.datetime]:
    """Return the moment in a `vtime`, None when it has no zone or no known form.

    Known: `2012-10-15T22:36:58.836+08:00` (1.x), `...+0000` (2.x), `...Z`.
    """
    if not isinstance(untrusted, str) or len(untrusted) > 40:
        return None
    for form in ("%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z"):
        try:
            return datetime.datetime.strptime(untrusted, form)
        except ValueError:
            continue
    return None
