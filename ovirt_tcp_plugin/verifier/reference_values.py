# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The reference values that hosts are judged by, what changes them, and what a change would do.

A change counts from the moment it is committed, on every server: a result tells by which version it was judged, and
one of an older version is judged again, from what its evidence proved, before anybody sees it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Optional

from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import reference_values
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet, Value
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier import judgement, settings
from ovirt_tcp_plugin.verifier.judgement import Criteria, Measured
from ovirt_tcp_plugin.verifier.store import challenges, references, results
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.results import Found, Result

UNREADABLE = Finding(
    8, "reference_values_unreadable", "a set of reference values cannot be read; remove it"
)

# What makes a boot unfit to be a reference; check (8) itself says only that it is a new one.
_UNFIT = ("no_launch", "pcr_unproven")

Change = Callable[[ReferenceSet], ReferenceSet]


@dataclasses.dataclass(frozen=True)
class ReferenceVersion:
    """The reference values of one version, ready to judge by; `criteria` by PCR bank."""

    version: int
    sets: tuple[ReferenceSet, ...]
    unreadable: tuple[str, ...]
    criteria: Mapping[str, Criteria]

    def names(self, host_name: str) -> bool:
        """Return whether a set is for this host by name."""
        return any(host_name in (one.host_names or ()) for one in self.sets)


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

    async def at(self, version: int) -> ReferenceVersion:
        """Return the reference values of this version or a later one.

        Raises:
            Unavailable: the store does not answer.
        """
        if self._newest is None or self._newest.version < version:
            stored = await self._database.read(references.load)
            self._newest = ReferenceVersion(
                stored.version, stored.sets, stored.unreadable, _criteria(stored.sets)
            )
        return self._newest

    async def newest(self) -> ReferenceVersion:
        """Return the reference values as they are now. Raises Unavailable."""
        return await self.at(await self._database.read(references.version))

    async def judge_again(self, found: Mapping[str, Found], version: int) -> dict[str, Found]:
        """Return these results, with those judged by older reference values judged anew.

        Raises:
            Unavailable: the store does not answer.
        """
        old = {
            name: one
            for name, one in found.items()
            if isinstance(one, Result) and one.policy < version
        }
        if not old:
            return dict(found)
        again: dict[str, Found] = {}
        policy = await self.at(version)
        # In parts, so that the server goes on to answer while ten thousand hosts are judged.
        for part in challenges.chunks(list(old)):
            judged = await self._judge_all({name: old[name] for name in part}, policy)
            await self._database.write(functools.partial(_keep_all, old=old, judged=judged))
            again.update(judged)
        return {**found, **again}

    async def import_boot(
        self, name: str, host_name: str, findings: Sequence[Finding], staged: bool
    ) -> ReferenceSet:
        """Take what a golden host's last evidence proved as reference values: a new set, or more values of one.

        Args:
            name: the set.
            host_name: the golden host.
            findings: what its evidence of just now left to be desired.
            staged: whether the values shall wait for `activate`.

        Raises:
            Conflict: its evidence has faults of its own, or the set is of boots with other steps.
        """
        measured = await self._database.read(lambda c: results.measured(c, [host_name]))
        boot = judgement.decode(measured.get(host_name, ""))
        reference_values.check_name(name)
        faults = [
            finding.text for finding in findings if finding.check != 8 or finding.code in _UNFIT
        ]
        if not boot.steps and not faults:
            faults = ["its log tells of no step"]
        if any(
            judgement.never_launched(index, bytes.fromhex(value))
            for index, value in boot.values.items()
        ):
            faults = ["no measured launch took place", *faults]
        if faults:
            raise errors.Conflict(f"host {host_name} cannot be golden: {faults[0]}")
        note = f"from {host_name}"[: reference_values.MAX_NOTE_LENGTH]
        golden = reference_values.from_boot(name, boot.bank, boot.steps, staged, note)
        return await self._database.write(lambda c: _merge(c, golden))

    async def add(self, name: str, value: Value) -> ReferenceSet:
        """Add one value to a set. A value of a whole PCR may begin a new set.

        Raises:
            NotFound: no such set.
            Conflict: the set has no such part.
        """
        reference_values.check_name(name)
        begin = ReferenceSet(name) if not value.component else None
        return await self._change(name, lambda one: one.with_values([value]), begin)

    async def activate(self, name: str, identifiers: Iterable[str]) -> ReferenceSet:
        """Have staged values of a set count; all of them if none is named. Raises NotFound."""
        chosen = tuple(identifiers)
        return await self._change(name, lambda one: one.activated(chosen or _staged(one)))

    async def withdraw(self, name: str, identifiers: Iterable[str]) -> ReferenceSet:
        """Remove values from a set; the whole set if none is named.

        Raises:
            NotFound: no such set or value.
            Conflict: hosts are judged by this set only; without it they would be judged by those for all.
        """
        chosen = tuple(identifiers)
        if chosen:
            return await self._change(name, lambda one: one.withdrawn(chosen))
        await self._database.write(lambda c: _remove(c, name))
        return ReferenceSet(name)

    async def preview(
        self, activate: Mapping[str, Sequence[str]], withdraw: Mapping[str, Sequence[str]]
    ) -> list[Preview]:
        """Return the hosts whose level would change, exactly: each is judged from what its evidence proved.

        Args:
            activate: staged values by set; an empty sequence means all of the set.
            withdraw: values by set; an empty sequence means the whole set.

        Raises:
            NotFound: no such set or value.
        """
        policy = await self.newest()
        criteria = _criteria(_then(policy.sets, activate, withdraw))
        found, version = await self._database.read(
            lambda c: (results.of_all(c), references.version(c))
        )
        found = await self.judge_again(found, version)
        known = {name: one for name, one in found.items() if isinstance(one, Result)}
        then = dataclasses.replace(policy, criteria=criteria)
        changes = []
        for part in challenges.chunks(list(known)):
            judged = await self._judge_all({name: known[name] for name in part}, then)
            changes += [
                Preview(name, known[name].level, new.level, new.findings)
                for name, new in judged.items()
                if isinstance(new, Result) and new.level is not known[name].level
            ]
            await asyncio.sleep(0)  # SQLite answers without a pause, and others wait
        return changes

    async def _judge_all(
        self, found: Mapping[str, Result], policy: ReferenceVersion
    ) -> dict[str, Found]:
        measured = await self._database.read(lambda c: results.measured(c, list(found)))
        return {
            name: self._judge(name, one, measured.get(name, ""), policy)
            for name, one in found.items()
        }

    def _judge(self, name: str, old: Result, measured: str, policy: ReferenceVersion) -> Found:
        try:
            proven: Measured = judgement.decode(measured)
        except errors.InvalidMessage:
            return errors.InvalidMessage(f"record of host {name}", "it cannot be read")
        criteria = policy.criteria.get(proven.bank)
        if criteria is None:
            return errors.InvalidMessage(f"record of host {name}", "it cannot be read")
        required = self._options.required_in(proven.bank)
        level, findings = judgement.judge_again(name, old.findings, proven, required, criteria)
        level, findings = excuse(level, findings, policy, policy.names(name))
        return dataclasses.replace(old, level=level, findings=findings, policy=policy.version)

    async def _change(
        self, name: str, change: Change, begin: Optional[ReferenceSet] = None
    ) -> ReferenceSet:
        def work(connection: Connection) -> ReferenceSet:
            known = next((one for one in references.hold(connection) if one.name == name), begin)
            if known is None:
                raise errors.NotFound("set of reference values", name)
            changed = change(known)
            references.put(connection, changed)
            return changed

        return await self._database.write(work)


def _criteria(sets: Sequence[ReferenceSet]) -> Mapping[str, Criteria]:
    return {bank: Criteria(bank, sets) for bank in settings.BANKS}


def excuse(
    level: Level, findings: tuple[Finding, ...], policy: ReferenceVersion, named: bool
) -> tuple[Level, tuple[Finding, ...]]:
    """Return level and findings where a corrupt set of reference values may have decided: then nothing is known.

    A bad row in the server's own store takes no host out, but it lets none in either: a host that is not `named` by a
    set may have been by the corrupt one, and then the sets for all are not for it.
    """
    if policy.unreadable and level is Level.UNTRUSTED and all(map(_by_values, findings)):
        return Level.UNKNOWN, (UNREADABLE, *findings)
    for_some_hosts = any(one.startswith(reference_values.MLE_PREFIX) for one in policy.unreadable)
    if level is Level.TRUSTED and not named and for_some_hosts:
        return Level.UNKNOWN, (UNREADABLE,)
    return level, findings


def _by_values(finding: Finding) -> bool:
    """Return whether a finding rests on reference values; that nothing was launched rests on none."""
    return finding.check == 8 and finding.code != "no_launch"


def _keep_all(
    connection: Connection, old: Mapping[str, Result], judged: Mapping[str, Found]
) -> None:
    for name, new in judged.items():
        if isinstance(new, Result):
            results.judge_again(connection, name, old[name], new)


def _merge(connection: Connection, golden: ReferenceSet) -> ReferenceSet:
    known = next((one for one in references.hold(connection) if one.name == golden.name), None)
    merged = known.merged(golden) if known else golden
    references.put(connection, merged)
    return merged


def _remove(connection: Connection, name: str) -> None:
    known = next((one for one in references.hold(connection) if one.name == name), None)
    if known is None and name.startswith(reference_values.MLE_PREFIX):
        raise errors.Conflict(
            f"{name} cannot be read, and hosts may be judged by it only: remove or register its MLE anew"
        )
    if known and known.host_names:
        raise errors.Conflict(
            f"{name} has registered hosts: withdraw its values by name, or end their registration first"
        )
    references.remove(connection, name)


def _staged(one: ReferenceSet) -> list[str]:
    return [value.identifier for value in one.values if value.staged]


def _then(
    sets: Sequence[ReferenceSet],
    activate: Mapping[str, Sequence[str]],
    withdraw: Mapping[str, Sequence[str]],
) -> list[ReferenceSet]:
    """Return the sets as they would be."""
    unknown = sorted({*activate, *withdraw} - {one.name for one in sets})
    if unknown:
        raise errors.NotFound("set of reference values", unknown[0])
    then = []
    for one in sets:
        if one.name in activate:
            one = one.activated(activate[one.name] or _staged(one))
        if one.name in withdraw:
            one = one.withdrawn(withdraw[one.name] or [value.identifier for value in one.values])
        then.append(one)
    return then
