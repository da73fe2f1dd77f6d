# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Evidence that came for a nonce.

It is appraised, and nonce and result change in one transaction.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Optional, Union

from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import evidence, tpm2
from ovirt_tcp_plugin.messages.findings import CheckNumber
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.appraisal import appraise, measured
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised, Discarded
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.known_logs import KnownLogs
from ovirt_tcp_plugin.verifier.appraisal.reappraise import Conclusion
from ovirt_tcp_plugin.verifier.metrics import VerifierMetrics
from ovirt_tcp_plugin.verifier.reference_values import (
    ReferenceValueService,
    ReferenceVersion,
    excuse,
)
from ovirt_tcp_plugin.verifier.store import challenges, results
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import EnrolledHost, HostSnapshot
from ovirt_tcp_plugin.verifier.store.results import Result

log = logging.getLogger("verifier.attestation")


class EvidenceIntake:
    """Takes the evidence of all hosts."""

    def __init__(
        self,
        database: Database,
        reference_values: ReferenceValueService,
        metrics: VerifierMetrics,
        options: settings.Appraisal,
        clock: Clock,
    ) -> None:
        self._database = database
        self._reference_values = reference_values
        self._metrics = metrics
        self._options = options
        self._clock = clock

    async def take(self, state: HostSnapshot, reported: evidence.Evidence, address: str) -> Result:
        """Appraise a host's evidence, keep the result and return it.

        Args:
            state: as it was when the request began. If anything of weight has changed since, the
                nonce was taken back meanwhile, or is another one.
            address: where it came from.

        Raises:
            Refused: the evidence was discarded: code and reason are of the failed check.
            Unavailable: the result could not be kept.
        """
        host = state.host
        version = await self._reference_values.at(state.reference_version)
        issued = self._issued(state)
        known = await self._known_logs(host, reported)
        outcome = self._appraise(state, reported, issued, known, version)
        if isinstance(outcome, Discarded):
            await self._discard(host, reported.nonce, outcome.finding)
            raise errors.Refused(outcome.finding.code, outcome.finding.text)
        born_ms = self._clock.now_ms() if issued is None else issued.born_ms
        fresh = self._new_result(state, outcome, version, born_ms)
        proven = None
        if known is None or outcome.measured != known.measured:
            proven = measured.encode(outcome.measured)
        await self._keep(host, reported.nonce, fresh, proven, address)
        return fresh

    async def _known_logs(
        self, host: EnrolledHost, reported: evidence.Evidence
    ) -> Optional[KnownLogs]:
        """Return what is known of the logs that a report names, None if it carries them."""
        if not reported.log_digests:
            return None
        return await self._database.read(lambda c: results.known_logs(c, host.name))

    async def _keep(
        self,
        host: EnrolledHost,
        nonce: bytes,
        fresh: Result,
        proven: Optional[str],
        address: str,
    ) -> None:
        await self._database.write(lambda c: _answer(c, host, nonce, fresh, proven, address))
        self._metrics.appraised(fresh.level)
        codes = ",".join(finding.code for finding in fresh.findings)
        log.info("appraised host=%s level=%s findings=%s", host.name, fresh.level.value, codes)

    async def _discard(self, host: EnrolledHost, nonce: bytes, finding: Finding) -> None:
        """Take the nonce back: what came for it proved nothing."""
        log.warning("discarded host=%s check=%d code=%s", host.name, finding.check, finding.code)
        self._metrics.discarded(finding.code)
        await self._database.write(lambda c: challenges.take(c, host.name, nonce))

    def _issued(self, state: HostSnapshot) -> Optional[IssuedNonce]:
        """Return the nonce that is out, None if it is of another clock or of another profile."""
        issued = state.challenge.nonce
        if issued is None or state.challenge.clock_id != self._clock.boot_id:
            return None
        if issued.challenge.selection != self._required(state.host):
            return None
        return issued

    def _appraise(
        self,
        state: HostSnapshot,
        reported: evidence.Evidence,
        issued: Optional[IssuedNonce],
        known: Optional[KnownLogs],
        version: ReferenceVersion,
    ) -> Union[Appraised, Discarded]:
        host = state.host
        last = results.readable(state.result)
        return appraise.appraise(
            reported,
            host.tpm,
            issued,
            last.boot if last else None,
            known,
            self._required(host),
            version.criteria[host.tpm.bank],
            self._clock.now_ms(),
        )

    def _new_result(
        self, state: HostSnapshot, outcome: Appraised, version: ReferenceVersion, born_ms: int
    ) -> Result:
        host = state.host
        last = results.readable(state.result)
        by_name = version.names(host.name)
        conclusion = excuse(Conclusion(outcome.level, outcome.findings), version, by_name)
        fresh = Result(
            level=conclusion.level,
            findings=conclusion.findings,
            clock_id=self._clock.boot_id,
            born_ms=born_ms,
            boot=_baseline(last.boot if last else None, outcome),
            boot_id=outcome.boot.boot_id,
            reference_version=version.number,
            tpm_family=host.tpm.family,
            log_digests=outcome.log_digests,
            profile=self._options.profile_pcrs,
        )
        return supersede(last, fresh)

    def _required(self, host: EnrolledHost) -> tpm2.Selection:
        return self._options.required_in(host.tpm.bank)


def supersede(kept: Optional[Result], fresh: Result) -> Result:
    """Return the result to keep: `untrusted` ends only by a trusted one (or by an administrator).

    All else is of the new evidence, since the level may be judged again by what that proved.
    """
    if kept is not None and kept.level is Level.UNTRUSTED and fresh.level is Level.UNKNOWN:
        return dataclasses.replace(fresh, level=Level.UNTRUSTED)
    return fresh


def _baseline(previous: Optional[BootCounters], outcome: Appraised) -> BootCounters:
    """Return the counters to measure the next quote against.

    Ones that failed check (5) are no baseline: the next quote would agree with them, and the host
    be trusted again without the reboot that it needs.
    """
    failed = any(finding.check == CheckNumber.COUNTERS for finding in outcome.findings)
    return previous if previous is not None and failed else outcome.boot


def _answer(
    connection: Connection,
    host: EnrolledHost,
    nonce: bytes,
    fresh: Result,
    proven: Optional[str],
    address: str,
) -> None:
    """Take the nonce back and keep the result, both or neither.

    Raises:
        Refused: the nonce was used meanwhile, or the host enrolled again.
    """
    if not challenges.answer(connection, host.name, nonce, address):
        raise errors.Refused("nonce_unknown", "the nonce was used before")
    if not results.keep(connection, host.name, host.certificate_digest, fresh, proven):
        raise errors.Refused("not_enrolled", "the host was enrolled again, or removed, meanwhile")
