# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Looks again, now and then, whether the TPMs of enrolled hosts are still vouched for.

A vendor's authority that was removed, a certificate that was revoked, an EK that is not registered
any more and first use that was switched off count for the next enrolment. What is enrolled stays,
since a mistake in a directory would stop a site, but not in silence: each such host is reported
until it is mended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.verifier.revocation import Revocations, VendorTrust
from ovirt_tcp_plugin.verifier.store import endorsements, hosts
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import EnrolledHost
from ovirt_tcp_plugin.verifier.tpm_family import FAMILIES
from ovirt_tcp_plugin.verifier.upkeep import Withdrawn

log = logging.getLogger("verifier.tpm_review")

INTERVAL_S = 3600.0
# Between two hosts: a path takes a millisecond, and agents are served meanwhile.
PAUSE_S = 0.005


class EndorsementReview:
    """The last look.

    Attributes:
        withdrawn: the hosts concerned, by name.
    """

    def __init__(
        self, database: Database, vendors: VendorTrust, first_use: bool, clock: Clock
    ) -> None:
        self.withdrawn: Mapping[str, Withdrawn] = {}
        self._database = database
        self._vendors = vendors
        self._first_use = first_use
        self._clock = clock
        self._due = asyncio.Event()

    @property
    def revocations(self) -> Revocations:
        """What the vendors revoked."""
        return self._vendors.revocations

    def use(self, vendors: VendorTrust) -> None:
        """Believe these vendors from now on, and look again."""
        self._vendors = vendors
        self._due.set()

    async def keep_looking(self) -> None:
        """Look at once, and again and again, until cancelled."""
        while True:
            self._due.clear()
            try:
                await self.look()
            except errors.Unavailable as e:
                log.warning("endorsements not reviewed error=%s", e)
            try:
                await asyncio.wait_for(self._due.wait(), INTERVAL_S)
            except asyncio.TimeoutError:
                continue

    async def look(self) -> None:
        """Look at every enrolled host once. Raises Unavailable."""
        names = await self._database.read(hosts.names)
        registered = dict(await self._database.read(endorsements.every))
        withdrawn = {}
        for name in names:
            fault = await self._fault(name, registered)
            if fault is not None:
                withdrawn[name] = fault
                if name not in self.withdrawn:
                    log.warning("endorsement gone host=%s code=%s", name, fault.code)
            await asyncio.sleep(PAUSE_S)
        self.withdrawn = withdrawn

    async def _fault(self, name: str, registered: Mapping[str, str]) -> Optional[Withdrawn]:
        try:
            host = await self._database.read(lambda c: hosts.find(c, name))
        except errors.InvalidMessage:
            return None  # told as record_unreadable
        if host is None:
            return None
        if host.endorsed_by == "registered" and registered.get(name) != host.ek_digest:
            text = "the registration of the TPM's EK was removed"
            return Withdrawn(name, "ek_removed", text)
        if host.endorsed_by == "first_use" and not self._first_use:
            text = "nobody ever vouched for the TPM, and first_use is switched off"
            return Withdrawn(name, "first_use_off", text)
        if host.endorsed_by == "vendor":
            return self._certificate_fault(host)
        return None

    def _certificate_fault(self, host: EnrolledHost) -> Optional[Withdrawn]:
        candidate = FAMILIES[host.tpm.family].endorsed(host.tpm, host.ek_certificate)
        try:
            candidate.check_ek_certificate(self._vendors, self._clock.wall())
        except errors.Refused as e:
            if e.code == "ek_expired":
                return None  # it was good when the chip was bound; an end is no withdrawal
            if e.code == "ek_revoked":
                return Withdrawn(host.name, e.code, e.reason)
        except errors.InvalidMessage:
            pass
        else:
            return None
        text = "no vendor's authority in ek-ca.d vouches for the TPM any more"
        return Withdrawn(host.name, "vendor_gone", text)
