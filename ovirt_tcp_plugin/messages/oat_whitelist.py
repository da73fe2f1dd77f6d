# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's whitelist and its registration of hosts, as 1.5 to 2.x spell them.

Source: OpenAttestation 1.6, the beans and resources of WLMService, and `HOSTResource`. An MLE
(measured launch environment) is the BIOS of an OEM or the VMM of an OS. Its field names stand
nowhere else.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields, tpm2

Members = Mapping[str, object]
Record = Mapping[str, str]

# Of names; OpenAttestation builds queries from them.
_FORBIDDEN = frozenset("#&+:\"'")
MAX_NAME_LENGTH = 50
MAX_VERSION_LENGTH = 100
MAX_TEXT_LENGTH = 100
# A value for each PCR in each bank, and room for several.
MAX_MANIFESTS = 256
# A digest's length tells its bank.
BANKS: Mapping[int, str] = {40: "sha1", 64: "sha256", 96: "sha384"}

# The member that holds a list of records, by their kind: the name that JAXB gives a bean. 1.6 wrote
# a list of one as its element and an empty one as null; here it is always an array.
WRAPPERS: Mapping[str, str] = {"oem": "oem", "os": "os", "mle": "mleBean", "host": "hostBean"}

# What a registered host says of itself, with the longest text of each.
_HOST_TEXTS = {
    "IPAddress": 255,
    "Port": 50,
    "Email": 100,
    "AddOn_Connection_String": 100,
    "Description": 100,
    "Location": 200,
}
# The members that an update changes; what the host is judged by stays.
HOST_CHANGES = (
    "IPAddress",
    "Port",
    "Email",
    "AddOn_Connection_String",
    "Description",
    "pcrIMLMask",
)


@dataclasses.dataclass(frozen=True)
class Owner:
    """Whose an MLE is: an OEM, which has no version, or an OS."""

    name: str
    version: str = ""

    @property
    def kind(self) -> str:
        """What an MLE of this owner is."""
        return "VMM" if self.version else "BIOS"


@dataclasses.dataclass(frozen=True)
class MleName:
    """What names an MLE: name and version; and whose it has to be."""

    name: str
    version: str
    owner: Owner


@dataclasses.dataclass(frozen=True)
class Pcr:
    """A good value of a whole PCR; `digest` is lower-case hex."""

    index: int
    bank: str
    digest: str


@dataclasses.dataclass(frozen=True)
class Mle:
    """An MLE with its good values."""

    name: MleName
    description: str
    pcrs: tuple[Pcr, ...]


@dataclasses.dataclass(frozen=True)
class HostRegistration:
    """A host as it is registered: what it is called, what is said of it, and its MLEs."""

    name: str
    record: Record
    mles: tuple[MleName, ...]


def decode_oem(members: Members) -> Record:
    """Return an OEM. Raises Refused."""
    return {"Name": _name(members, "Name"), "Description": _description(members)}


def decode_os(members: Members) -> Record:
    """Return an operating system. Raises Refused."""
    return {**decode_oem(members), "Version": _name(members, "Version")}


def decode_mle(members: Members) -> Mle:
    """Return an MLE.

    Raises:
        Refused: 500 for a wrong member or value, 1006 for a kind of MLE that there is not.
    """
    if members.get("Attestation_Type") != "PCR":
        raise errors.Refused("500", "Attestation_Type must be PCR")
    kind = members.get("MLE_Type")
    if kind == "BIOS":
        owner = owner_in(members, "OemName")
    elif kind == "VMM":
        owner = owner_in(members, "OsName", "OsVersion")
    else:
        raise errors.Refused("1006", "MLE_Type must be BIOS or VMM")
    version = _name(members, "Version", MAX_VERSION_LENGTH)
    name = MleName(_name(members, "Name"), version, owner)
    return Mle(name, _description(members), _manifests(members))


def mle_name_in(members: Members) -> MleName:
    """Return which MLE a query or a PCR speaks of. Raises Refused."""
    name = _name(members, "mleName")
    version = _name(members, "mleVersion", MAX_VERSION_LENGTH)
    if members.get("oemName"):
        return MleName(name, version, owner_in(members, "oemName"))
    return MleName(name, version, owner_in(members, "osName", "osVersion"))


def decode_pcr(members: Members) -> Pcr:
    """Return a good value. Raises Refused."""
    return _pcr(members, "pcrName", "pcrDigest")


def pcr_index_in(members: Members) -> int:
    """Return which PCR a query speaks of. Raises Refused."""
    return _pcr_index(members, "pcrName")


def decode_host(members: Members) -> HostRegistration:
    """Return a host to be registered.

    Raises:
        Refused: 500 for a wrong member, 2001 for an MLE that is named by half, or none at all.
    """
    record = {"HostName": host_name_in(members, "HostName"), **_host_texts(members)}
    names = [
        _mle_of_host(members, "BIOS", ("BIOS_Name", "BIOS_Version"), ("BIOS_Oem",)),
        _mle_of_host(members, "VMM", ("VMM_Name", "VMM_Version"), ("VMM_OSName", "VMM_OSVersion")),
    ]
    mles = tuple(name for name in names if name)
    if not mles:
        raise errors.Refused("2001", "Data Error - HOST needs a BIOS or a VMM")
    return HostRegistration(record["HostName"].lower(), {**record, **_encode_mles(mles)}, mles)


def decode_host_change(members: Members) -> tuple[str, Record]:
    """Return a host's name, lower case, and what is now said of it.

    Raises:
        Refused: 500 for a wrong member.
    """
    texts = _host_texts(members)
    changes = {name: texts[name] for name in HOST_CHANGES}
    return host_name_in(members, "HostName").lower(), changes


def host_name_in(members: Members, member: str) -> str:
    """Return a host's name as it was given; it need not be one. Raises Refused."""
    name = members.get(member)
    if not isinstance(name, str) or not 0 < len(name) <= 255 or not name.isprintable():
        raise errors.Refused("500", f"{member} must be a text of 1 to 255 characters")
    return name


def owner_in(members: Members, *names: str) -> Owner:
    """Return which OEM or OS a query speaks of, by the members that name it. Raises Refused."""
    return Owner(*(_name(members, name) for name in names))


def encode_mle(mle: Mle) -> Record:
    """Return the record of an MLE, but for its values.

    What it does not have is the text "null", as it was.
    """
    owner = mle.name.owner
    vmm = owner.kind == "VMM"
    return {
        "Name": mle.name.name,
        "Version": mle.name.version,
        "OsName": owner.name if vmm else "null",
        "OsVersion": owner.version if vmm else "null",
        "OemName": "null" if vmm else owner.name,
        "Attestation_Type": "PCR",
        "MLE_Type": owner.kind,
        "Description": mle.description,
    }


def encode_pcr(index: int, digest: str) -> dict[str, str]:
    """Return the JSON object of a value among those of an MLE."""
    return {"Name": str(index), "Value": digest}


def owner_of(mle: Record) -> Owner:
    """Return whose an MLE is, from what `encode_mle` told."""
    if mle.get("MLE_Type") == "BIOS":
        return Owner(mle.get("OemName", ""))
    return Owner(mle.get("OsName", ""), mle.get("OsVersion", ""))


def _mle_of_host(
    members: Members, kind: str, mle: tuple[str, str], owner: Sequence[str]
) -> Optional[MleName]:
    present = [name for name in (*mle, *owner) if members.get(name)]
    if not present:
        return None
    if len(present) < len(mle) + len(owner):
        needed = ", ".join((*mle, *owner))
        raise errors.Refused("2001", f"Data Error - HOST needs all of {needed}, or none of them")
    name, version = mle
    return MleName(
        _name(members, name),
        _name(members, version, MAX_VERSION_LENGTH),
        owner_in(members, *owner),
    )


def _encode_mles(mles: Sequence[MleName]) -> Record:
    encoded = {}
    for mle in mles:
        kind = mle.owner.kind
        encoded[f"{kind}_Name"] = mle.name
        encoded[f"{kind}_Version"] = mle.version
        if kind == "BIOS":
            encoded["BIOS_Oem"] = mle.owner.name
        else:
            encoded["VMM_OSName"] = mle.owner.name
            encoded["VMM_OSVersion"] = mle.owner.version
    return encoded


def _host_texts(members: Members) -> dict[str, str]:
    texts = {name: _text(members, name, length) for name, length in _HOST_TEXTS.items()}
    mask = _text(members, "pcrIMLMask", 6) or "000000"
    if not re.fullmatch("[0-9A-Fa-f]{6}", mask):
        raise errors.Refused("500", "pcrIMLMask must be six hex digits")
    return {**texts, "Description": _description(members), "pcrIMLMask": mask}


def _manifests(members: Members) -> tuple[Pcr, ...]:
    manifests = members.get("MLE_Manifests") or []
    entries = [manifests] if isinstance(manifests, dict) else manifests
    if not isinstance(entries, list) or len(entries) > MAX_MANIFESTS:
        reason = f"MLE_Manifests must be an array of at most {MAX_MANIFESTS} values"
        raise errors.Refused("500", reason)
    decoded: dict[Pcr, None] = {}  # each once, in order
    for entry in entries:
        if not isinstance(entry, dict):
            raise errors.Refused("500", "every value in MLE_Manifests must be a JSON object")
        pcr = _pcr(entry, "Name", "Value")
        decoded[pcr] = None
    return tuple(decoded)


def _pcr(members: Members, index: str, digest: str) -> Pcr:
    """Return the value whose index and digest these members hold."""
    number = _pcr_index(members, index)
    value = members.get(digest)
    if isinstance(value, str) and len(value) in BANKS and re.fullmatch("[0-9A-Fa-f]*", value):
        return Pcr(number, BANKS[len(value)], value.lower())
    reason = f"{digest} must be 40 hex digits (SHA-1), 64 (SHA-256) or 96 (SHA-384)"
    raise errors.Refused("500", reason)


def _pcr_index(members: Members, member: str) -> int:
    index = members.get(member)
    last = tpm2.PCR_COUNT - 1
    if not isinstance(index, str) or not re.fullmatch("[0-9]{1,2}", index) or int(index) > last:
        raise errors.Refused("500", f"{member} must be the number of a PCR, 0 to {last}")
    return int(index)


def _name(members: Members, member: str, max_length: int = MAX_NAME_LENGTH) -> str:
    name = members.get(member)
    if isinstance(name, str) and _is_name(name, max_length):
        return name
    reason = f"{member} must be a text of 1 to {max_length} characters without # & + : \" or '"
    raise errors.Refused("500", reason)


def _is_name(text: str, max_length: int) -> bool:
    if not 0 < len(text) <= max_length:
        return False
    return text.isprintable() and _FORBIDDEN.isdisjoint(text)


def _description(members: Members) -> str:
    """Return a description, which may have no character that a name may not have.

    Raises Refused.
    """
    description = _text(members, "Description")
    if _FORBIDDEN.isdisjoint(description):
        return description
    raise errors.Refused("500", "Description has one of # & + : \" or '")


def _text(members: Members, member: str, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return a text for people, empty if it is absent. 2.x writes ports as numbers."""
    text = members.get(member)
    if text is None:
        return ""
    if isinstance(text, int) and not isinstance(text, bool) and 0 <= text < 2**16:
        return str(text)
    if not isinstance(text, str) or len(text) > max_length or not json_fields.encodable(text):
        raise errors.Refused("500", f"{member} must be a text of at most {max_length} characters")
    return text
