# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's whitelist as a view of the reference values.

An MLE is a set of reference values: values of whole PCRs, for the hosts that are registered with it
and no others. Its OEM or OS, and the description of a host, are records that its tools show; nobody
is judged by them.

What is refused bears OpenAttestation's code: 1006 (there is such a record already, or none), 1007
(no such MLE), 2012 (in use), 2000 and 404 (no such host), 2001 and 412 (wrong data of a host), 500.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable
from typing import Any, Optional

from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import oat_whitelist
from ovirt_tcp_plugin.messages.oat_whitelist import (
    HostRegistration,
    Mle,
    MleName,
    Owner,
    Pcr,
    Record,
)
from ovirt_tcp_plugin.messages.reference_values import MLE_PREFIX, ReferenceSet, Value
from ovirt_tcp_plugin.verifier.enrolment import is_host_name
from ovirt_tcp_plugin.verifier.store import oat_records, references
from ovirt_tcp_plugin.verifier.store.oat_records import OatRecords


class Whitelist:
    """The whitelist within one transaction of the database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._mles = OatRecords(connection, oat_records.MLE)
        self._hosts = OatRecords(connection, oat_records.HOST)

    def owners(self, kind: str) -> list[Record]:
        """Return the records of all OEMs or all OSs."""
        return OatRecords(self._connection, kind).every()

    def add_owner(self, record: Record) -> None:
        """Add an OEM or OS. Raises Refused (1006)."""
        owner = _owner(record)
        if self._find_owner(owner) is not None:
            raise _already_exists("1006", _label(owner))
        self._records_of(owner).put(record, owner.name, owner.version)

    def change_owner(self, record: Record) -> None:
        """Change the description of an OEM or OS. Raises Refused (1006)."""
        owner = _owner(record)
        self._check_owner(owner)
        self._records_of(owner).put(record, owner.name, owner.version)

    def remove_owner(self, owner: Owner) -> None:
        """Remove an OEM or OS. Raises Refused (1006; 2012 if an MLE is of it)."""
        self._check_owner(owner)
        for mle in self._mles.every():
            if oat_whitelist.owner_of(mle) == owner:
                reason = f"Data Error - {_label(owner)} reference with MLE, delete failed"
                raise errors.Refused("2012", reason)
        self._records_of(owner).remove(owner.name, owner.version)

    def mles(self, criteria: str) -> list[dict[str, Any]]:
        """Return the JSON objects of the MLEs with `criteria` in a member, in any case."""
        stored = references.load(self._connection)
        sets = {reference_set.name: reference_set for reference_set in stored.sets}
        objects = []
        for record in self._mles.every():
            if _mentions(record, criteria):
                name = set_name(record.get("Name", ""), record.get("Version", ""))
                objects.append(_encode_mle(record, sets.get(name)))
        return objects

    def mle(self, name: MleName) -> dict[str, Any]:
        """Return the JSON object of one MLE. Raises Refused (1007)."""
        record = self._check_mle(name, "1007")
        stored = references.load(self._connection)
        return _encode_mle(record, _find_set(stored.sets, name))

    def add_mle(self, mle: Mle) -> None:
        """Add an MLE, for no host yet. Raises Refused (1006)."""
        name = mle.name
        self._check_owner(name.owner)
        if self._mles.find(name.name, name.version) is not None:
            raise _already_exists("1006", f"MLE {name.name}")
        self._put_mle(mle, _empty_set(name))

    def change_mle(self, mle: Mle) -> None:
        """Change an MLE's description and replace all its values. Raises Refused (1007)."""
        self._check_mle(mle.name, "1007")
        reference_set = self._hold_set(mle.name)
        self._put_mle(mle, dataclasses.replace(reference_set, slots=(), values=()))

    def remove_mle(self, name: MleName) -> None:
        """Remove an MLE with its values.

        Raises:
            Refused: 1007; 500 if a host is registered with it.
        """
        self._check_mle(name, "1007")
        reference_set = _find_set(references.hold(self._connection), name)
        if reference_set and reference_set.host_names:
            reason = f"Delete MLE entry failed: MLE {name.name} has a reference with HOST"
            raise errors.Refused("500", reason)
        self._mles.remove(name.name, name.version)
        if reference_set:
            references.remove(self._connection, reference_set.name)

    def add_pcr(self, name: MleName, pcr: Pcr) -> None:
        """Add a value to an MLE that has none for this PCR and bank. Raises Refused (1006)."""
        self._check_mle(name, "1006")
        reference_set = self._hold_set(name)
        if _values_of_pcr(reference_set, pcr.index, pcr.bank):
            reason = f"Data Error - PCR {pcr.index} exists in the database"
            raise errors.Refused("1006", reason)
        self._put_set(reference_set, [pcr])

    def change_pcr(self, name: MleName, pcr: Pcr) -> None:
        """Replace an MLE's values for a PCR and bank. Raises Refused (1006)."""
        self._check_mle(name, "1006")
        without = _without_pcr(self._hold_set(name), pcr.index, pcr.bank)
        self._put_set(without, [pcr])

    def remove_pcr(self, name: MleName, index: int) -> None:
        """Remove an MLE's values for a PCR, in every bank. Raises Refused (1006)."""
        self._check_mle(name, "1006")
        without = _without_pcr(self._hold_set(name), index)
        self._put_set(without, [])

    def hosts(self, criteria: str) -> list[Record]:
        """Return the registered hosts whose name contains `criteria`, in any case."""
        part = criteria.lower()
        hosts = self._hosts.every()
        return [host for host in hosts if part in host.get("HostName", "").lower()]

    def add_host(self, host: HostRegistration) -> None:
        """Register a host: from now on it is judged by its MLEs only.

        Raises Refused (500, 2001).
        """
        if not is_host_name(host.name):
            reason = "Add HOST entry failed: HostName is neither a DNS name nor an address"
            raise errors.Refused("500", reason)
        if self._hosts.find(host.name) is not None:
            raise _already_exists("2001", f"HOST {host.name}")
        for name in host.mles:
            self._check_mle(name, "2001")
        self._hosts.put(host.record, host.name)
        for name in host.mles:
            reference_set = self._hold_set(name)
            references.put(self._connection, reference_set.with_host(host.name))

    def change_host(self, host_name: str, changes: Record) -> None:
        """Change the description of a host; what it is judged by stays.

        Raises Refused (404, 412).
        """
        record = self._hosts.find(host_name)
        if record is None:
            raise errors.Refused("404", f"Update host entry failed: {host_name} does not exist")
        if not changes["IPAddress"] or not changes["Port"]:
            reason = "Update host entry failed: IPAddress and Port are required"
            raise errors.Refused("412", reason)
        self._hosts.put({**record, **changes}, host_name)

    def remove_host(self, host_name: str) -> None:
        """End a host's registration: it is judged again by the sets that are for all.

        Raises Refused (2000).
        """
        if not self._hosts.remove(host_name):
            raise _does_not_exist("2000", f"HOST {host_name}")
        for reference_set in references.hold(self._connection):
            is_mle = reference_set.name.startswith(MLE_PREFIX)
            if is_mle and host_name in (reference_set.host_names or ()):
                references.put(self._connection, reference_set.without_host(host_name))

    def _records_of(self, owner: Owner) -> OatRecords:
        kind = oat_records.OS if owner.version else oat_records.OEM
        return OatRecords(self._connection, kind)

    def _find_owner(self, owner: Owner) -> Optional[Record]:
        return self._records_of(owner).find(owner.name, owner.version)

    def _check_owner(self, owner: Owner) -> None:
        if self._find_owner(owner) is None:
            raise _does_not_exist("1006", _label(owner))

    def _check_mle(self, name: MleName, code: str) -> Record:
        record = self._mles.find(name.name, name.version)
        if record is None or oat_whitelist.owner_of(record) != name.owner:
            raise _does_not_exist(code, f"MLE {name.name} of that version and owner")
        return record

    def _put_mle(self, mle: Mle, reference_set: ReferenceSet) -> None:
        record = oat_whitelist.encode_mle(mle)
        self._mles.put(record, mle.name.name, mle.name.version)
        self._put_set(reference_set, mle.pcrs)

    def _hold_set(self, name: MleName) -> ReferenceSet:
        """Return the set of an MLE for a change of it.

        `ovirt-tcp reference withdraw` may have removed it.
        """
        sets = references.hold(self._connection)
        return _find_set(sets, name) or _empty_set(name)

    def _put_set(self, reference_set: ReferenceSet, pcrs: Iterable[Pcr]) -> None:
        """Keep a set, with these values more."""
        values = []
        for pcr in pcrs:
            value = Value(pcr.bank, pcr.index, "", pcr.digest, note="OpenAttestation")
            values.append(value)
        references.put(self._connection, reference_set.with_values(values))


def set_name(name: str, version: str) -> str:
    """Return the name of the set of reference values that is this MLE.

    What no set can be called is replaced by its digest; the name itself stands in the MLE's record.
    """
    if re.fullmatch(r"[A-Za-z0-9._-]{1,123}", name + version):
        return f"{MLE_PREFIX}{name}:{version}"
    digest = hashlib.sha256(f"{name}:{version}".encode())
    return MLE_PREFIX + digest.hexdigest()


def _already_exists(code: str, label: str) -> errors.Refused:
    return errors.Refused(code, f"Data Error - {label} already exists in the database")


def _does_not_exist(code: str, label: str) -> errors.Refused:
    return errors.Refused(code, f"Data Error - {label} does not exist in the database")


def _owner(record: Record) -> Owner:
    return Owner(record["Name"], record.get("Version", ""))


def _label(owner: Owner) -> str:
    if owner.version:
        return f"OS {owner.name}{owner.version}"
    return f"OEM {owner.name}"


def _mentions(record: Record, criteria: str) -> bool:
    part = criteria.lower()
    return any(part in text.lower() for text in record.values())


def _empty_set(name: MleName) -> ReferenceSet:
    """Return the set of an MLE that no host is registered with."""
    return ReferenceSet(set_name(name.name, name.version), host_names=())


def _find_set(sets: Iterable[ReferenceSet], name: MleName) -> Optional[ReferenceSet]:
    name_of_set = set_name(name.name, name.version)
    for reference_set in sets:
        if reference_set.name == name_of_set:
            return reference_set
    return None


def _values_of_pcr(reference_set: ReferenceSet, index: int, bank: str = "") -> list[Value]:
    """Return the values of a whole PCR, in one bank, or in all of them without one."""
    values = []
    for value in reference_set.values:
        in_bank = bank in ("", value.bank)
        if in_bank and value.pcr == index and not value.component:
            values.append(value)
    return values


def _without_pcr(reference_set: ReferenceSet, index: int, bank: str = "") -> ReferenceSet:
    """Return the set without the values of a PCR. Raises Refused (1006) if there are none."""
    values = _values_of_pcr(reference_set, index, bank)
    if not values:
        raise _does_not_exist("1006", f"PCR {index} of that MLE")
    return reference_set.withdrawn(value.identifier for value in values)


def _encode_mle(record: Record, reference_set: Optional[ReferenceSet]) -> dict[str, Any]:
    members = {**record, "MLE_Manifests": _manifests(reference_set)}
    # In JAXB's order: OpenAttestation's own acceptance script goes by the first of them.
    return dict(sorted(members.items()))


def _manifests(reference_set: Optional[ReferenceSet]) -> list[dict[str, str]]:
    """Return the values of whole PCRs that count."""
    if reference_set is None:
        return []
    manifests = []
    for value in reference_set.values:
        if not value.component and not value.staged:
            manifests.append(oat_whitelist.encode_pcr(value.pcr, value.digest))
    return manifests
