# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The last result on each host, and what it rests on.

One row a host; it goes when the host goes.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import sqlalchemy as sa
from sqlalchemy.engine import Connection

import ovirt_tcp_plugin
from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.appraisal import measured as appraisal_measured
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.known_logs import KnownLogs
from ovirt_tcp_plugin.verifier.store import columns as stored_columns
from ovirt_tcp_plugin.verifier.store.challenges import chunks
from ovirt_tcp_plugin.verifier.store.prepared_statements import PreparedStatement
from ovirt_tcp_plugin.verifier.store.schema import hosts, results

log = logging.getLogger("verifier.store")

_ALL_BUT_MEASURED = [column for column in results.c if column.name != "measured"]

# What one release read in a log, another reads again: it may look for more.
_RELEASE = ovirt_tcp_plugin.__version__

# Clock of a result that has no age any more; no machine has it.
VOID = ""

_CHANGING = [column.name for column in results.c if column.name != "host_name"]
_ENROLLED = sa.select(hosts.c.name).where(
    hosts.c.name == sa.bindparam("the_host"),
    hosts.c.certificate_digest == sa.bindparam("the_certificate"),
)
_OF_ENROLLED = sa.update(results).where(
    results.c.host_name == sa.bindparam("the_host"), _ENROLLED.exists()
)
_KEEP = PreparedStatement(_OF_ENROLLED.values({name: sa.bindparam(name) for name in _CHANGING}))
# For a report that proves what the one before did: that is the most of a row by far.
_KEEP_MEASURED = PreparedStatement(
    _OF_ENROLLED.values({name: sa.bindparam(name) for name in _CHANGING if name != "measured"})
)
_LOGS = PreparedStatement(
    sa.select(results.c.boot_id, results.c.logs, results.c.measured).where(
        results.c.host_name == sa.bindparam("the_host")
    )
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found out about a host.

    Attributes:
        level: trusted, untrusted or unknown.
        findings: every failed check.
        clock_id: boot id of the server that issued the nonce; `born_ms` is by its clock.
        born_ms: CLOCK_BOOTTIME of that server when it issued the nonce.
        boot: counters that the host's next quote is measured against (check 5).
        boot_id: the host's kernel boot id at that time.
        reference_version: number of the reference values that it was judged by.
        tpm_family: family of the host's TPM; kept with the host.
        log_digests: of the event logs by kind that all required PCRs were proven by; empty if they
            were not, or by another release.
        profile: PCRs that were required of it, as `Appraisal.profile_pcrs` writes them; empty if
            another release judged it.
    """

    level: Level
    findings: tuple[Finding, ...]
    clock_id: str
    born_ms: int
    boot: BootCounters
    boot_id: str
    reference_version: int
    tpm_family: str
    log_digests: Mapping[str, str]
    profile: str


# What a table row gives: a result, none yet, or a row that cannot be read.
StoredResult = Union[Result, None, errors.InvalidMessage]


def keep(
    connection: Connection,
    name: str,
    certificate_digest: str,
    result: Result,
    measured: Optional[str],
) -> bool:
    """Keep a host's newest result; return False if it was re-enrolled or removed meanwhile.

    Args:
        measured: None if it is what the result before rests on.
    """
    host = {"the_host": name, "the_certificate": certificate_digest}
    row = _row(result)
    if measured is None:
        return _KEEP_MEASURED.change(connection, {**row, **host}) == 1
    row["measured"] = measured
    if _KEEP.change(connection, {**row, **host}) == 1:
        return True
    # The host's first result, unless it is not enrolled any more.
    if connection.execute(_ENROLLED, host).first() is None:
        return False
    connection.execute(sa.insert(results).values(host_name=name, **row))
    return True


def _row(result: Result) -> dict[str, object]:
    return {
        "level": result.level.value,
        "findings": _encode_findings(result.findings),
        "clock_id": result.clock_id,
        "born_ms": result.born_ms,
        "boot": _encode_boot(result.boot),
        "boot_id": result.boot_id,
        "policy": result.reference_version,
        "logs": _encode_logs(result.log_digests),
        "profile": result.profile,
    }


def reappraise(connection: Connection, name: str, old: Result, new: Result) -> None:
    """Replace level and findings of a result, unless newer evidence came meanwhile."""
    same_evidence = results.c.born_ms == old.born_ms
    same_values = sa.and_(
        results.c.policy == old.reference_version, results.c.profile == old.profile
    )
    update = sa.update(results).where(results.c.host_name == name, same_evidence, same_values)
    changes = {
        "level": new.level.value,
        "findings": _encode_findings(new.findings),
        "policy": new.reference_version,
        "profile": new.profile,
    }
    connection.execute(update.values(**changes))


def void(connection: Connection, clock_id: str, before_ms: int) -> list[str]:
    """Take the age from every trusted result not known to be born at or after a moment.

    Return whose they were.
    """
    young = sa.and_(results.c.clock_id == clock_id, results.c.born_ms >= before_ms)
    trusted = results.c.level == Level.TRUSTED.value
    chosen = sa.and_(trusted, results.c.clock_id != VOID, sa.not_(young))
    selection = sa.select(results.c.host_name).where(chosen)
    names = [str(name) for name in connection.execute(selection).scalars()]
    connection.execute(sa.update(results).where(chosen).values(clock_id=VOID))
    return sorted(names)


def remove(connection: Connection, name: str) -> None:
    """Forget a host's result."""
    connection.execute(sa.delete(results).where(results.c.host_name == name))


def find(connection: Connection, name: str) -> StoredResult:
    """Return the last result on one host."""
    selection = _with_hosts().where(hosts.c.name == name)
    row = connection.execute(selection).mappings().first()
    return None if row is None else decode(row)


def of_hosts(connection: Connection, names: Sequence[str]) -> dict[str, StoredResult]:
    """Return the last results on those of the hosts that are enrolled."""
    stored: dict[str, StoredResult] = {}
    for chunk in chunks(names):
        selection = _with_hosts().where(hosts.c.name.in_(chunk))
        for row in connection.execute(selection).mappings():
            stored[row["name"]] = decode(row)
    return stored


def of_all(connection: Connection) -> dict[str, StoredResult]:
    """Return the last results on all enrolled hosts, sorted by name.

    What is no name is shown as Python writes it.
    """
    rows = connection.execute(_with_hosts().order_by(hosts.c.name)).mappings()
    return {str(row["name"]): decode(row) for row in rows}


def measured(connection: Connection, names: Sequence[str]) -> Mapping[str, str]:
    """Return what the last evidence of each host showed, as `keep` got it."""
    texts: dict[str, str] = {}
    selection = sa.select(results.c.host_name, results.c.measured)
    for chunk in chunks(names):
        of_chunk = selection.where(results.c.host_name.in_(chunk))
        for name, text in connection.execute(of_chunk):
            texts[name] = text if isinstance(text, str) else ""
    return texts


def known_logs(connection: Connection, name: str) -> Optional[KnownLogs]:
    """Return what a host's logs said with its last evidence, None if they did not tell all."""
    row = _LOGS.first(connection, {"the_host": name})
    if row is None:
        return None
    try:
        digests = _decode_logs(stored_columns.text(row["logs"]))
        if not digests:
            return None
        return KnownLogs(
            stored_columns.text(row["boot_id"]), digests, appraisal_measured.decode(row["measured"])
        )
    except (ValueError, TypeError, AttributeError, errors.InvalidMessage):
        log.error("logs unreadable host=%s", name)
        return None


def _with_hosts() -> Any:
    joined = hosts.outerjoin(results, hosts.c.name == results.c.host_name)
    return sa.select(hosts.c.name, *columns()).select_from(joined)


def columns() -> list[Any]:
    """Return the columns that `decode` reads, for a statement that joins the host's."""
    read = [*_ALL_BUT_MEASURED, hosts.c.tpm_family]
    return [column.label(f"result_{column.name}") for column in read]


def decode(row: Any) -> StoredResult:
    """Return what a row with `columns` tells."""
    if row["result_host_name"] is None:
        return None
    try:
        return Result(
            level=Level(row["result_level"]),
            findings=_decode_findings(row["result_findings"]),
            clock_id=stored_columns.text(row["result_clock_id"]),
            born_ms=stored_columns.number(row["result_born_ms"]),
            boot=_decode_boot(row["result_boot"]),
            boot_id=stored_columns.text(row["result_boot_id"]),
            reference_version=stored_columns.number(row["result_policy"]),
            tpm_family=stored_columns.text(row["result_tpm_family"]),
            log_digests=_decode_logs(stored_columns.text(row["result_logs"])),
            profile=stored_columns.text(row["result_profile"]),
        )
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        name = row["result_host_name"]
        log.error("record unreadable host=%s", name)
        return errors.InvalidMessage(f"record of host {name}", "it cannot be read")


def _encode_boot(boot: BootCounters) -> str:
    counters = f"{boot.boot_id} {boot.reset_count} {boot.restart_count} {boot.clock}"
    return counters if boot.lead_ms is None else f"{counters} {boot.lead_ms}"


def _decode_boot(stored: str) -> BootCounters:
    boot_id, reset_count, restart_count, clock, *lead = stored.split(" ")
    counters = BootCounters(boot_id, int(reset_count), int(restart_count), int(clock))
    if not lead:  # of a TPM 1.2, or of a release that did not keep it
        return counters
    (lead_ms,) = lead
    return dataclasses.replace(counters, lead_ms=int(lead_ms))


def _encode_logs(digests: Mapping[str, str]) -> str:
    if not digests:
        return ""
    named = [f"{kind}={digest}" for kind, digest in sorted(digests.items())]
    return " ".join([_RELEASE, *named])


def _decode_logs(stored: str) -> Mapping[str, str]:
    release, *named = stored.split(" ")
    if release != _RELEASE:
        return {}
    digests = {}
    for item in named:
        kind, digest = item.split("=")
        digests[kind] = digest
    return digests


def _decode_findings(stored: str) -> tuple[Finding, ...]:
    if stored == "[]":  # nearly all of them, and a thousand are read at once
        return ()
    return tuple(_decode_finding(members) for members in json.loads(stored))


def _decode_finding(members: Any) -> Finding:
    """Return a finding. Raises ValueError, TypeError, AttributeError."""
    return Finding(
        check=stored_columns.number(members["check"]),
        code=stored_columns.text(members["code"]),
        text=stored_columns.text(members["text"]),
        expected=stored_columns.text(members["expected"]),
        seen=stored_columns.text(members["seen"]),
    )


def _encode_findings(findings: Sequence[Finding]) -> str:
    return json.dumps([dataclasses.asdict(finding) for finding in findings])


def check(row: Any) -> None:
    """Return if a row of the table can be read. Raises ValueError or InvalidMessage."""
    labelled = {f"result_{name}": value for name, value in row.items()}
    # The family is the host's.
    decoded = decode({**labelled, "result_tpm_family": ""})
    if isinstance(decoded, errors.InvalidMessage):
        raise decoded
    stored_columns.text(row["host_name"])
    appraisal_measured.decode(row["measured"])


def readable(stored: StoredResult) -> Optional[Result]:
    """Return the result if there is one that can be read."""
    return stored if isinstance(stored, Result) else None
