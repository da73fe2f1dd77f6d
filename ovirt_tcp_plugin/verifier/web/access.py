# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who may call what."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from typing import Union


class CallerKind(enum.Enum):
    """Who may call a route. Values are the roles of tokens, but for the first four."""

    ANYONE = "anyone"
    AGENT = "agent"
    OAT_NETWORK = "oat_network"
    METRICS_NETWORK = "metrics_network"
    VIEWER = "viewer"
    OPERATOR = "operator"
    POLICY = "policy"
    ENROLMENT = "enrolment"


# Who works may look, too; who hands out enrolment tokens need not.
INCLUDES = {
    "viewer": {CallerKind.VIEWER},
    "operator": {CallerKind.VIEWER, CallerKind.OPERATOR},
    "policy": {CallerKind.VIEWER, CallerKind.POLICY},
    "enrolment": {CallerKind.ENROLMENT},
}
TOKEN_ROLES = tuple(INCLUDES)

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


def account_of(address: str) -> str:
    """Return what a peer's address counts as: itself, or its /64 of IPv6.

    One machine has 2^64 addresses there, and could be another peer with each request.
    """
    if ":" not in address:
        return address
    try:
        peer = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if peer.ipv4_mapped is not None:
        return str(peer.ipv4_mapped)
    return str(ipaddress.IPv6Network((peer, 64), strict=False))


class Networks:
    """Some networks, as the configuration names them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(name) for name in names]

    def hold(self, address: str) -> bool:
        """Return whether a peer's address is in one of them.

        A peer by IPv4 on an IPv6 socket is one by IPv4.
        """
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._networks)
