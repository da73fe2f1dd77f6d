# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's whitelist as a view of the reference values.

An MLE is a set of reference values: values of whole PCRs, for the hosts that are registered with it
and no others. Its OEM or OS, and what is told of a host, are records that its tools show; nobody is
judged by them.

Each function is a piece of work for the database. What is refused bears OpenAttestation's code:
1006 (there is such a record already, or none), 1007 (no such MLE), 2012 (in use), 2000 and 404 (no
such host), 2001 and 412 (wrong data of a host), 500.
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
from ovirt_tcp_plugin.messages.oat_whitelist import Host, Mle, MleName, Owner, Pcr, Record
from ovirt_tcp_plugin.messages.reference_values import MLE_PREFIX, ReferenceSet, Value
from ovirt_tcp_plugin.verifier.enrolment import is_host_name
from ovirt_tcp_plugin.verifier.store import oat_records, references
from ovirt_tcp_plugin.verifier.store.oat_records import HOST, MLE, OEM, OS


def set_name(name: str, version: str) -> str:
    """Return the name of the set of reference values that is this MLE.

    What no set can be called is replaced by its digest; the name itself stands in the MLE's record.
    """
    if re.fullmatch(r"[A-Za-z0-9._-]{1,123}", name + version):
        return f"{MLE_PREFIX}{name}:{version}"
    return MLE_PREFIX + hashlib.sha256(f"{name}:{version}".encode()).hexdigest()


def add_owner(connection: Connection, record: Record) -> None:
    """Add an OEM or OS. Raises Refused (1006)."""
    owner = _owner(record)
    if oat_records.find(connection, _kind(owner), owner.name, owner.version) is not None:
        raise errors.Refused("1006", f"Data Error - {_label(owner)} already exists in the database")
    oat_records.put(connection, _kind(owner), record, owner.name, owner.version)


def change_owner(connection: Connection, record: Record) -> None:
    """Change what is told of an OEM or OS. Raises Refused (1006)."""
    owner = _owner(record)
    _check_owner(connection, owner)
    oat_records.put(connection, _kind(owner), record, owner.name, owner.version)


def remove_owner(connection: Connection, owner: Owner) -> None:
    """Remove an OEM or OS. Raises Refused (1006; 2012 if an MLE is of it)."""
    _check_owner(connection, owner)
    if any(oat_whitelist.owner_of(mle) == owner for mle in oat_records.every(connection, MLE)):
        raise errors.Refused(
            "2012", f"Data Error - {_label(owner)} reference with MLE, delete failed"
        )
    oat_records.remove(connection, _kind(owner), owner.name, owner.version)


def add_mle(connection: Connection, mle: Mle) -> None:
    """Add an MLE, for no host yet. Raises Refused (1006)."""
    _check_owner(connection, mle.name.owner)
    if oat_records.find(connection, MLE, mle.name.name, mle.name.version) is not None:
        raise errors.Refused(
            "1006", f"Data Error - MLE {mle.name.name} already exists in the database"
        )
    _put_mle(connection, mle)
    references.put(connection, _begin(mle.name).with_values(_values(mle.pcrs)))


def change_mle(connection: Connection, mle: Mle) -> None:
    """Change an MLE's description and replace all its values. Raises Refused (1007)."""
    _check_mle(connection, mle.name, "1007")
    _put_mle(connection, mle)
    kept = dataclasses.replace(_set_of(connection, mle.name), slots=(), values=())
    references.put(connection, kept.with_values(_values(mle.pcrs)))


def remove_mle(connection: Connection, name: MleName) -> None:
    """Remove an MLE with its values. Raises Refused (1007; 500 if a host is registered with it)."""
    _check_mle(connection, name, "1007")
    known = _find_set(references.hold(connection), name)
    if known and known.host_names:
        raise errors.Refused(
            "500", f"Delete MLE entry failed: MLE {name.name} has a reference with HOST"
        )
    oat_records.remove(connection, MLE, name.name, name.version)
    if known:
        references.remove(connection, known.name)


def mles(connection: Connection, criteria: str) -> list[dict[str, Any]]:
    """Return the JSON objects of the MLEs of which a member contains `criteria`, in any case."""
    sets = {known.name: known for known in references.load(connection).sets}
    objects = []
    for record in oat_records.every(connection, MLE):
        if any(criteria.lower() in text.lower() for text in record.values()):
            name = set_name(record.get("Name", ""), record.get("Version", ""))
            objects.append({**record, "MLE_Manifests": _manifests(sets.get(name))})
    return objects


def mle(connection: Connection, name: MleName) -> dict[str, Any]:
    """Return the JSON object of one MLE. Raises Refused (1007)."""
    record = _check_mle(connection, name, "1007")
    known = _find_set(references.load(connection).sets, name)
    return {**record, "MLE_Manifests": _manifests(known)}


def add_pcr(connection: Connection, name: MleName, pcr: Pcr) -> None:
    """Add a value to an MLE that has none for this PCR and bank. Raises Refused (1006)."""
    _check_mle(connection, name, "1006")
    known = _set_of(connection, name)
    if any(_is_of(value, pcr.index, pcr.bank) for value in known.values):
        raise errors.Refused("1006", f"Data Error - PCR {pcr.index} exists in the database")
    references.put(connection, known.with_values(_values([pcr])))


def change_pcr(connection: Connection, name: MleName, pcr: Pcr) -> None:
    """Replace an MLE's values for a PCR and bank. Raises Refused (1006)."""
    _check_mle(connection, name, "1006")
    left = _without(_set_of(connection, name), pcr.index, pcr.bank)
    references.put(connection, left.with_values(_values([pcr])))


def remove_pcr(connection: Connection, name: MleName, index: int) -> None:
    """Remove an MLE's values for a PCR. Raises Refused (1006)."""
    _check_mle(connection, name, "1006")
    references.put(connection, _without(_set_of(connection, name), index))


def add_host(connection: Connection, host: Host) -> None:
    """Register a host: from now on it is judged by its MLEs only. Raises Refused (500, 2001)."""
    if not is_host_name(host.name):
        raise errors.Refused(
            "500", "Add HOST entry failed: HostName is neither a DNS name nor an address"
        )
    if oat_records.find(connection, HOST, host.name) is not None:
        raise errors.Refused(
            "2001", f"Data Error - HOST {host.name} already exists in the database"
        )
    for name in host.mles:
        _check_mle(connection, name, "2001")
    oat_records.put(connection, HOST, host.record, host.name)
    for name in host.mles:
        references.put(connection, _set_of(connection, name).with_host(host.name))


def change_host(connection: Connection, host_name: str, changes: Record) -> None:
    """Change what is told of a host; what it is judged by stays. Raises Refused (404, 412)."""
    record = oat_records.find(connection, HOST, host_name)
    if record is None:
        raise errors.Refused("404", f"Update host entry failed: {host_name} does not exist")
    if not changes["IPAddress"] or not changes["Port"]:
        raise errors.Refused("412", "Update host entry failed: IPAddress and Port are required")
    oat_records.put(connection, HOST, {**record, **changes}, host_name)


def remove_host(connection: Connection, host_name: str) -> None:
    """End a host's registration: it is judged again by the sets that are for all.

    Raises Refused (2000).
    """
    if not oat_records.remove(connection, HOST, host_name):
        raise errors.Refused(
            "2000", f"Data Error - HOST {host_name} does not exist in the database"
        )
    for known in references.hold(connection):
        if known.name.startswith(MLE_PREFIX) and host_name in (known.host_names or ()):
            references.put(connection, known.without_host(host_name))


def hosts(connection: Connection, criteria: str) -> list[Record]:
    """Return the registered hosts whose name contains `criteria`, in any case."""
    known = oat_records.every(connection, HOST)
    return [record for record in known if criteria.lower() in record.get("HostName", "").lower()]


def _owner(record: Record) -> Owner:
    return Owner(record["Name"], record.get("Version", ""))


def _kind(owner: Owner) -> str:
    return OS if owner.version else OEM


def _label(owner: Owner) -> str:
    return f"OS {owner.name}{owner.version}" if owner.version else f"OEM {owner.name}"


def _check_owner(connection: Connection, owner: Owner) -> None:
    if oat_records.find(connection, _kind(owner), owner.name, owner.version) is None:
        raise errors.Refused("1006", f"Data Error - {_label(owner)} does not exist in the database")


def _check_mle(connection: Connection, name: MleName, code: str) -> Record:
    record = oat_records.find(connection, MLE, name.name, name.version)
    if record is None or oat_whitelist.owner_of(record) != name.owner:
        raise errors.Refused(
            code,
            (
                f"Data Error - MLE {name.name} of that version and owner does not exist in the "
                "database"
            ),
        )
    return record


def _put_mle(connection: Connection, mle: Mle) -> None:
    record = oat_whitelist.encode_mle(mle)
    oat_records.put(connection, MLE, record, mle.name.name, mle.name.version)


def _begin(name: MleName) -> ReferenceSet:
    """Return the set of an MLE that no host is registered with."""
    return ReferenceSet(set_name(name.name, name.version), host_names=())


def _find_set(sets: Iterable[ReferenceSet], name: MleName) -> Optional[ReferenceSet]:
    name_of_set = set_name(name.name, name.version)
    return next((known for known in sets if known.name == name_of_set), None)


def _set_of(connection: Connection, name: MleName) -> ReferenceSet:
    """Return the set of an MLE for a change of it.

    `ovirt-tcp reference withdraw` may have removed it.
    """
    return _find_set(references.hold(connection), name) or _begin(name)


def _is_of(value: Value, index: int, bank: str = "") -> bool:
    return not value.component and value.pcr == index and bank in ("", value.bank)


def _without(known: ReferenceSet, index: int, bank: str = "") -> ReferenceSet:
    gone = [value.identifier for value in known.values if _is_of(value, index, bank)]
    if not gone:
        raise errors.Refused(
            "1006", f"Data Error - PCR {index} of that MLE does not exist in the database"
        )
    return known.withdrawn(gone)


def _values(pcrs: Iterable[Pcr]) -> list[Value]:
    return [Value(pcr.bank, pcr.index, "", pcr.digest, note="OpenAttestation") for pcr in pcrs]


def _manifests(known: Optional[ReferenceSet]) -> list[dict[str, str]]:
    if known is None:
        return []
    return [
        oat_whitelist.encode_pcr(value.pcr, value.digest)
        for value in known.values
        if not value.component and not value.staged
    ]
