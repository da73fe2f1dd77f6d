# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The reference values that hosts are judged by, what changes them, and what a change would do.

A change counts from the moment it is committed, on every server: a result tells by which version
it was judged, and one of an older version is judged again, from what its evidence proved, before
anybody sees it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Optional

from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import components, eventlog, reference_values
from ovirt_tcp_plugin.messages.findings import CheckNumber, FindingCode, next_step
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet, Value
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.appraisal import golden_boot, kernel_cover, measured
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured
from ovirt_tcp_plugin.verifier.appraisal.reappraise import Conclusion, reappraise
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from ovirt_tcp_plugin.verifier.store import challenges, references, results
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.results import Result, StoredResult

UNREADABLE = FindingCode.REFERENCE_VALUES_UNREADABLE.finding(
    "a set of reference values cannot be read; remove it"
)

# Into which tboot measures what it loads.
LAUNCH_PCRS = (17, 18, 19)

# What makes a boot unfit to be a reference; check (8) itself says only that it is a new one.
_UNFIT = (FindingCode.NO_LAUNCH.code, FindingCode.PCR_UNPROVEN.code)

Change = Callable[[ReferenceSet], ReferenceSet]
# Identifiers of values by the name of their set; none means all of them.
Choice = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class ReferenceVersion:
    """The reference values of one version, ready to judge by.

    Attributes:
        number: what the store counts them by.
        unreadable: names of the sets whose rows are corrupt.
        criteria: the sets, arranged for judging, by PCR bank.
    """

    number: int
    sets: tuple[ReferenceSet, ...]
    unreadable: tuple[str, ...]
    criteria: Mapping[str, Criteria]

    def names(self, host_name: str) -> bool:
        """Return whether a set is for this host by name."""
        return any(host_name in (known.host_names or ()) for known in self.sets)


@dataclasses.dataclass(frozen=True)
class Preview:
    """What a change would do to one host."""

    host_name: str
    now: Level
    then: Level
    findings: tuple[Finding, ...]


class ReferenceValueService:
    """The reference values, read again from the store when their version has moved on."""

    def __init__(self, database: Database, options: settings.Appraisal) -> None:
        self._database = database
        self._options = options
        self._newest: Optional[ReferenceVersion] = None

    async def at(self, number: int) -> ReferenceVersion:
        """Return the reference values of this version, or the newest if it is another by now.

        Raises:
            Unavailable: the store does not answer.
        """
        if self._newest is None or self._newest.number != number:
            stored = await self._database.read(references.load)
            criteria = _arrange(stored.sets)
            self._newest = ReferenceVersion(
                stored.version, stored.sets, stored.unreadable, criteria
            )
        return self._newest

    async def newest(self) -> ReferenceVersion:
        """Return the reference values as they are now. Raises Unavailable."""
        number = await self._database.read(references.version)
        return await self.at(number)

    async def reappraise(
        self, stored: Mapping[str, StoredResult], number: int
    ) -> dict[str, StoredResult]:
        """Return these results by today's reference values and profile.

        Those judged by others are judged again. What the profile requires now and their evidence
        does not show is unknown until the host reports again.

        Args:
            stored: results by host name.
            number: of the newest version.

        Raises:
            Unavailable: the store does not answer.
        """
        outdated = {}
        for name, result in _readable(stored).items():
            # A higher one was never given: its row is corrupt, and would count for ever.
            if result.reference_version != number or result.profile != self._options.profile_pcrs:
                outdated[name] = result
        current = dict(stored)
        if not outdated:
            return current
        version = await self.at(number)
        # In parts, so that the server goes on to answer while ten thousand hosts are judged.
        for names in challenges.chunks(list(outdated)):
            judged = await self._reappraise_hosts(names, outdated, version)
            await self._database.write(functools.partial(_keep, outdated, judged))
            current.update(judged)
        return current

    async def import_boot(
        self,
        name: str,
        host_name: str,
        findings: Sequence[Finding],
        staged: bool,
        without_kernel: bool = False,
    ) -> ReferenceSet:
        """Take what a golden host's last evidence proved as reference values.

        They become a new set, or more values of one.

        Args:
            name: the set.
            host_name: the golden host.
            findings: what its evidence of just now left to be desired.
            staged: whether the values shall wait for `activate`.
            without_kernel: whether a measured launch may be golden whose log tells of no kernel.

        Raises:
            Conflict: its evidence has faults of its own, it tells of no kernel, or the set is of
                boots with other steps.
        """
        texts = await self._database.read(lambda c: results.measured(c, [host_name]))
        boot = measured.decode(texts.get(host_name, ""))
        reference_values.check_name(name)
        required = self._options.required_in(boot.bank)[boot.bank]
        fault = next(_faults(boot, findings, required), None)
        if fault is not None:
            raise errors.Conflict(f"host {host_name} cannot be golden: {fault}")
        if not without_kernel:
            _check_kernel(host_name, boot)
        note = f"from {host_name}"[: reference_values.MAX_NOTE_LENGTH]
        golden = golden_boot.reference_set(name, boot, staged, note)
        return await self._database.write(lambda c: _merge(c, golden))

    async def add(self, name: str, value: Value) -> ReferenceSet:
        """Add one value to a set. A value of a whole PCR may begin a new set.

        Raises:
            NotFound: no such set.
            Conflict: the set has no such part.
        """
        reference_values.check_name(name)
        begin = None if value.component else ReferenceSet(name)
        return await self._change(name, lambda known: known.with_values([value]), begin)

    async def activate(self, name: str, identifiers: Iterable[str]) -> ReferenceSet:
        """Have staged values of a set count; all of them if none is named. Raises NotFound."""
        chosen = tuple(identifiers)
        return await self._change(name, lambda known: _activate(known, chosen))

    async def withdraw(self, name: str, identifiers: Iterable[str]) -> ReferenceSet:
        """Remove values from a set; the whole set if none is named.

        Raises:
            NotFound: no such set or value.
            Conflict: hosts are judged by this set only; without it they would be judged by those
                that are for all.
        """
        chosen = tuple(identifiers)
        if chosen:
            return await self._change(name, lambda known: known.withdrawn(chosen))
        await self._database.write(lambda c: _remove(c, name))
        return ReferenceSet(name)

    async def preview(self, activate: Choice, withdraw: Choice) -> list[Preview]:
        """Return the hosts whose level would change, exactly.

        Each host is judged from what its evidence proved.

        Args:
            activate: staged values to activate.
            withdraw: values to withdraw.

        Raises:
            NotFound: no such set or value.
        """
        version = await self.newest()
        changed_sets = _changed(version.sets, activate, withdraw)
        changed = dataclasses.replace(version, criteria=_arrange(changed_sets))
        stored, number = await self._database.read(
            lambda c: (results.of_all(c), references.version(c))
        )
        known = _readable(await self.reappraise(stored, number))
        previews: list[Preview] = []
        for names in challenges.chunks(list(known)):
            judged = await self._reappraise_hosts(names, known, changed)
            previews += _previews(known, judged)
            await asyncio.sleep(0)  # SQLite answers without a pause, and others wait
        return previews

    async def _reappraise_hosts(
        self, names: Sequence[str], known: Mapping[str, Result], version: ReferenceVersion
    ) -> dict[str, StoredResult]:
        texts = await self._database.read(lambda c: results.measured(c, names))
        judged = {}
        for name in names:
            text = texts.get(name, "")
            judged[name] = self._reappraise_host(name, known[name], text, version)
        return judged

    def _reappraise_host(
        self, name: str, old: Result, text: str, version: ReferenceVersion
    ) -> StoredResult:
        try:
            proven = measured.decode(text)
        except errors.InvalidMessage:
            return _unreadable_record(name)
        criteria = version.criteria.get(proven.bank)
        if criteria is None:
            return _unreadable_record(name)
        required = self._options.required_in(proven.bank)
        conclusion = reappraise(name, old.findings, proven, required, criteria)
        conclusion = excuse(conclusion, version, version.names(name))
        return dataclasses.replace(
            old,
            level=conclusion.level,
            findings=conclusion.findings,
            reference_version=version.number,
            profile=self._options.profile_pcrs,
        )

    async def _change(
        self, name: str, change: Change, begin: Optional[ReferenceSet] = None
    ) -> ReferenceSet:
        """Change a set; `begin` is what to start from if there is none of that name."""

        def work(connection: Connection) -> ReferenceSet:
            known = _find(references.hold(connection), name) or begin
            if known is None:
                raise errors.NotFound("set of reference values", name)
            changed = change(known)
            references.put(connection, changed)
            return changed

        return await self._database.write(work)


def excuse(conclusion: Conclusion, version: ReferenceVersion, by_name: bool) -> Conclusion:
    """Return the conclusion; where a corrupt set may have decided, that nothing is known.

    A bad row in the server's own store takes no host out, but it lets none in either: a host that
    is not named by a set may have been by the corrupt one, and then the sets for all are not for
    it.

    Args:
        by_name: whether a set that can be read names the host.
    """
    if not version.unreadable:
        return conclusion
    level, findings = conclusion
    if level is Level.UNTRUSTED and all(map(_rests_on_values, findings)):
        return Conclusion(Level.UNKNOWN, (UNREADABLE, *findings))
    if level is Level.TRUSTED and not by_name and any(map(_is_mle, version.unreadable)):
        return Conclusion(Level.UNKNOWN, (UNREADABLE,))
    return conclusion


def _is_mle(name: str) -> bool:
    """Return whether a set is for some hosts only."""
    return name.startswith(reference_values.MLE_PREFIX)


def _rests_on_values(finding: Finding) -> bool:
    """Return whether a finding rests on reference values; that nothing was launched does not."""
    if finding.code == FindingCode.NO_LAUNCH.code:
        return False
    return finding.check == CheckNumber.REFERENCE_VALUES


def _check_kernel(host_name: str, boot: Measured) -> None:
    """Return if the log of a measured launch tells of a kernel. Raises Conflict.

    tboot measures it into the banks of its option `extpol`; elsewhere nothing tells a good kernel
    from a bad one. Without a launch, the boot loader is measured instead.
    """
    launched = [step for step in boot.steps if step.pcr in LAUNCH_PCRS]
    if not launched:
        return
    if any(components.word_of(step.component) == "kernel" for step in launched):
        return
    raise errors.Conflict(
        f"host {host_name} cannot be golden: its log tells of no kernel in bank {boot.bank}, so "
        f"every kernel would be good. Have tboot measure into {boot.bank} (extpol=agile, or "
        f"extpol={boot.bank}), or import it with --without-kernel"
    )


def _faults(
    boot: Measured, findings: Sequence[Finding], required: Collection[int]
) -> Iterator[str]:
    """Return why a boot cannot be a reference, the cause first."""
    for pcr, value in boot.values.items():
        if eventlog.never_launched(pcr, bytes.fromhex(value)):
            yield "no measured launch took place"
    for finding in findings:
        if finding.check != CheckNumber.REFERENCE_VALUES or finding.code in _UNFIT:
            yield finding.text
    if not boot.steps:
        yield "its log tells of no step"
    unfit = golden_boot.fault(boot, required)
    if unfit is not None:
        yield unfit
    for uncovered in kernel_cover.check(boot, required):
        yield f"{uncovered.text}; {next_step(uncovered.code)}"


def _readable(stored: Mapping[str, StoredResult]) -> dict[str, Result]:
    return {name: result for name, result in stored.items() if isinstance(result, Result)}


def _unreadable_record(host_name: str) -> errors.InvalidMessage:
    return errors.InvalidMessage(f"record of host {host_name}", "it cannot be read")


def _previews(known: Mapping[str, Result], judged: Mapping[str, StoredResult]) -> Iterator[Preview]:
    for name, result in _readable(judged).items():
        level = known[name].level
        if result.level is not level:
            yield Preview(name, level, result.level, result.findings)


def _keep(
    outdated: Mapping[str, Result], judged: Mapping[str, StoredResult], connection: Connection
) -> None:
    for name, result in _readable(judged).items():
        results.reappraise(connection, name, outdated[name], result)


def _arrange(sets: Sequence[ReferenceSet]) -> Mapping[str, Criteria]:
    return {bank: Criteria(bank, sets) for bank in settings.BANKS}


def _find(sets: Iterable[ReferenceSet], name: str) -> Optional[ReferenceSet]:
    for reference_set in sets:
        if reference_set.name == name:
            return reference_set
    return None


def _merge(connection: Connection, golden: ReferenceSet) -> ReferenceSet:
    known = _find(references.hold(connection), golden.name)
    merged = known.merged(golden) if known else golden
    references.put(connection, merged)
    return merged


def _remove(connection: Connection, name: str) -> None:
    known = _find(references.hold(connection), name)
    if known is None and _is_mle(name):
        raise errors.Conflict(
            f"{name} cannot be read, and hosts may be judged by it only: "
            "remove or register its MLE again"
        )
    if known and known.host_names:
        raise errors.Conflict(
            f"{name} has registered hosts: "
            "withdraw its values by name, or end their registration first"
        )
    references.remove(connection, name)


def _activate(known: ReferenceSet, identifiers: Sequence[str]) -> ReferenceSet:
    """Return a set with staged values counting, all of them if none is named."""
    staged = [value.identifier for value in known.values if value.staged]
    return known.activated(identifiers or staged)


def _withdraw(known: ReferenceSet, identifiers: Sequence[str]) -> ReferenceSet:
    """Return a set without these values, without any if none is named."""
    every = [value.identifier for value in known.values]
    return known.withdrawn(identifiers or every)


def _changed(
    sets: Sequence[ReferenceSet], activate: Choice, withdraw: Choice
) -> list[ReferenceSet]:
    """Return the sets as they would be. Raises NotFound."""
    by_name = {known.name: known for known in sets}
    unknown = sorted({*activate, *withdraw} - set(by_name))
    if unknown:
        raise errors.NotFound("set of reference values", unknown[0])
    for name, identifiers in activate.items():
        by_name[name] = _activate(by_name[name], identifiers)
    for name, identifiers in withdraw.items():
        by_name[name] = _withdraw(by_name[name], identifiers)
    return list(by_name.values())
