# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges what runs beside the engine. Pure.

That is filterd with its snapshots, and the attestation servers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail, named, not_checked, warning
from ovirt_tcp_plugin.admin.doctor.observations import ObservedSite, ObservedSnapshots, ServerView
from ovirt_tcp_plugin.placement import filter_unit
from ovirt_tcp_plugin.placement.decision import Verdict, VmTrust, passing
from ovirt_tcp_plugin.placement.pools import Pool
from ovirt_tcp_plugin.placement.snapshot import Snapshot

# The broker writes what changed at once, and everything after each full look at the engine.
MISSED_LISTINGS = 3
# A snapshot may end or be written while filterd is asked.
MARGIN_MS = 2_000
MAX_SKEW_S = 5.0
DAY_S = 86_400
CERTIFICATE_WARNING_S = 60 * DAY_S

_BROKER_LOG = "see why the broker does not write: journalctl -u ovirt-tcp-broker"
_FILTERD_LOG = "journalctl -u ovirt-tcp-filterd"


def snapshots(
    site: ObservedSite, snapshots: ObservedSnapshots, full_s: float
) -> Iterable[DoctorFinding]:
    """Judge the files by which filterd answers.

    Args:
        full_s: the broker's option `intervals.full_s`.
    """
    broker = snapshots.broker_directory
    filterd = snapshots.filterd_directory
    if broker != filterd:
        text = f"The broker writes snapshots to {broker}, and filterd reads them in {filterd}."
        step = (
            "set snapshot.directory of broker.yaml and snapshots.directory of filterd.yaml alike,"
            " and restart both"
        )
        yield fail("snapshot_directories", text, step)
    for name, fault in sorted(snapshots.faults.items()):
        text = f"Snapshot file {name} is refused: {fault}."
        yield fail("snapshot_refused", text, f"remove it; {_BROKER_LOG}")
    for pool in site.pools.values():
        yield from _snapshot_of(pool, site, snapshots, full_s)
    if snapshots.closed:
        text = f"Not every user may read {named(snapshots.closed)}; filterd has to."
        step = "let the broker run with a umask of 0022, as its unit does"
        yield warning("snapshot_mode", text, step)


def discovery(units: Mapping[str, Collection[str]]) -> Iterable[DoctorFinding]:
    """Judge what answers where the engine asks for its external scheduler.

    Args:
        units: names of units by kind, as `discover` answered.
    """
    names: set[str] = set()
    for names_of_kind in units.values():
        names |= set(names_of_kind)
    foreign = names - {filter_unit.NAME}
    if filter_unit.NAME not in units.get("filters", ()) or foreign:
        offer = named(foreign) or "nothing"
        text = f"What answers on filterd's port is not filterd: it offers {offer}."
        step = "stop the other service, such as ovirt-scheduler-proxy, and start ovirt-tcp-filterd"
        yield fail("filterd_foreign", text, step)


def filtering(
    site: ObservedSite,
    snapshots: ObservedSnapshots,
    answers: Mapping[str, Collection[str]],
    now_ms: int,
) -> Iterable[DoctorFinding]:
    """Judge whether filterd lets a VM that needs trust run on the trusted hosts only.

    It is asked about a VM that nobody knows, which counts as one that needs trust.

    Args:
        answers: the host ids that it let pass, by cluster id.
        now_ms: CLOCK_BOOTTIME of the question.
    """
    for cluster_id, answer in answers.items():
        pool = site.pools[cluster_id]
        trusted = _trusted(pool, site, snapshots, now_ms)
        # A verdict may end while filterd is asked.
        staying = trusted & _trusted(pool, site, snapshots, now_ms + MARGIN_MS)
        wide = set(answer) - trusted
        narrow = staying - set(answer)
        if wide:
            names = named(site.host_names(wide))
            text = f"filterd lets VMs that need trust run on hosts that are not trusted: {names}."
            yield fail("filter_wide", text, f"restart ovirt-tcp-filterd; {_FILTERD_LOG}")
        if narrow:
            names = named(site.host_names(narrow))
            text = f"filterd refuses hosts that the snapshots call trusted: {names}."
            step = f"see whether its user can read the snapshots: {_FILTERD_LOG}"
            yield fail("filter_narrow", text, step)


def servers(views: Sequence[ServerView]) -> Iterable[DoctorFinding]:
    """Judge whether the attestation servers answer, with a good certificate, and take our token."""
    any_good = any(view.good for view in views)
    for view in views:
        for fault in _of_server(view):
            # One of several that is away is no outage.
            yield warning(fault.code, fault.text, fault.next_step) if any_good else fault
    for view in views:
        if not view.fault and view.certificate_ends_s < CERTIFICATE_WARNING_S:
            days = int(view.certificate_ends_s // DAY_S)
            text = f"The certificate of {view.url} ends in {days} days."
            step = (
                "renew it in time (ovirt-tcp-verifier authority certify): without it there are no"
                " verdicts"
            )
            yield warning("certificate_ends", text, step)
        yield from _upkeep(view)


def _upkeep(view: ServerView) -> Iterable[DoctorFinding]:
    ends_s = view.authorities_end_s
    if ends_s is not None and ends_s < CERTIFICATE_WARNING_S:
        days = int(ends_s // DAY_S)
        text = f"The authority in the broker's ca_file for {view.url} ends in {days} days."
        step = "`ovirt-tcp-verifier authority renew` if there is no newer one; copy its ca.pem here"
        yield warning("authority_ends", text, step)
    for sentence, step in view.duties:
        yield warning("upkeep", f"The attestation server {view.url} says: {sentence}.", step)


def records(views: Sequence[ServerView]) -> Iterable[DoctorFinding]:
    """Judge whether the attestation servers can read what they keep."""
    for view in views:
        if view.unreadable_rows:
            text = f"{view.unreadable_rows} rows in the database of {view.url} cannot be read."
            step = "run on that server's machine: ovirt-tcp-verifier record list"
            yield warning("server_records", text, step)


def clocks(views: Sequence[ServerView]) -> Iterable[DoctorFinding]:
    """Judge whether clocks agree.

    Ages of our own server do not depend on it; certificates, logs and people do.
    """
    if all(view.ahead_s is None for view in views):
        yield not_checked("No attestation server tells its time.")
    for view in views:
        if view.ahead_s is not None and abs(view.ahead_s) > MAX_SKEW_S:
            way = "ahead of" if view.ahead_s > 0 else "behind"
            text = f"The clock of {view.url} is {abs(view.ahead_s):.0f} s {way} this machine's."
            yield warning("clock_differs", text, "run chronyd or another NTP client on both")


def _snapshot_of(
    pool: Pool, site: ObservedSite, snapshots: ObservedSnapshots, full_s: float
) -> Iterable[DoctorFinding]:
    """Judge the snapshot of one pool."""
    hosts = site.hosts(pool)
    files: list[Snapshot] = []
    for host in hosts:
        snapshot = snapshots.by_host.get(host.id)
        if snapshot is not None and snapshot.pool_id == pool.cluster_id:
            files.append(snapshot)
    missing = len(hosts) - len(files)
    if missing:
        text = (
            f"Snapshots lack {missing} of {len(hosts)} hosts of cluster {pool.name}:"
            " these get no VMs."
        )
        yield fail("snapshot_missing", text, _BROKER_LOG)
    elif files:
        age_ms = snapshots.now_ms - files[0].written_ms
        if age_ms > MISSED_LISTINGS * full_s * 1000:
            text = (
                f"The snapshot of cluster {pool.name} is {age_ms // 1000} s old: new verdicts and"
                " VMs do not reach filterd."
            )
            yield fail("snapshot_stale", text, _BROKER_LOG)


def _trusted(pool: Pool, site: ObservedSite, snapshots: ObservedSnapshots, at_ms: int) -> set[str]:
    """Return the ids of a pool's hosts that are trusted by the snapshots at a moment."""
    verdicts: dict[str, Optional[Verdict]] = {}
    for host in site.hosts(pool):
        snapshot = snapshots.by_host.get(host.id)
        if snapshot is not None:
            verdicts[host.id] = snapshot.hosts.get(host.id)
    return set(passing(VmTrust(None), pool.scope, list(verdicts), verdicts, at_ms))


def _of_server(view: ServerView) -> Iterable[DoctorFinding]:
    if view.bad_certificate:
        text = f"The certificate of {view.url} is not good: {view.fault}."
        step = (
            "see verifier.urls and verifier.ca_file of broker.yaml: it has to be the ca.pem that"
            " the server's init made"
        )
        yield fail("server_certificate", text, step)
    elif view.fault:
        text = f"The attestation server {view.url} does not answer: {view.fault}."
        yield fail("server_unreachable", text, "start it, or repair the network path to it")
    elif view.status in (401, 403):
        text = f"The attestation server {view.url} refuses the broker's token."
        step = (
            "make one by `ovirt-tcp-verifier token add --role viewer` for the broker"
            " (OpenAttestation: auth_blob)"
        )
        yield fail("server_token", text, step)
    elif not view.good:
        text = f"The attestation server {view.url} answers with status {view.status}."
        step = "see its log, and verifier.kind and verifier.path of broker.yaml"
        yield fail("server_answer", text, step)


def secrets(open_files: Iterable[str]) -> Iterable[DoctorFinding]:
    """Judge the files with secrets that others than their owner and group may use."""
    for path in open_files:
        yield warning(
            "secret_mode",
            f"Others than its owner and group may read or write {path}, which has a secret in it.",
            f"chmod 600 {path}; make a new secret if somebody may have read it",
        )
