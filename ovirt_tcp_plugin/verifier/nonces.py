# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Nonces that are out: each is handed out once, taken back once, and soon ends (check 4)."""

from __future__ import annotations

from typing import Optional

from ovirt_tcp_plugin.messages import evidence, tpm2
from ovirt_tcp_plugin.verifier.appraisal import IssuedNonce

# A slow hardware TPM needs a second for a quote; a busy host some more.
LIFETIME_MS = 15_000


class Nonces:
    """At most one nonce a host is out; a new one makes the earlier one void."""

    def __init__(self) -> None:
        self._by_host: dict[str, IssuedNonce] = {}

    def issue(self, host_name: str, selection: tpm2.Selection, random: bytes, now_ms: int) -> IssuedNonce:
        """Return a challenge for a host. `random` is evidence.NONCE_SIZE fresh bytes."""
        challenge = evidence.Challenge(random, selection, LIFETIME_MS)
        issued = IssuedNonce(challenge, host_name, now_ms, now_ms + LIFETIME_MS)
        self._by_host[host_name] = issued
        return issued

    def take(self, host_name: str, nonce: bytes) -> Optional[IssuedNonce]:
        """Return what was issued to this host under `nonce`, and forget it; None if there is nothing."""
        issued = self._by_host.get(host_name)
        if issued is None or issued.challenge.nonce != nonce:
            return None
        del self._by_host[host_name]
        return issued

    def out(self, host_name: str, now_ms: int) -> bool:
        """Return whether a nonce is out for a host and has not ended."""
        issued = self._by_host.get(host_name)
        return issued is not None and now_ms < issued.end_ms

    def drop(self, host_name: str) -> None:
        """Forget what is out for a host."""
        self._by_host.pop(host_name, None)
