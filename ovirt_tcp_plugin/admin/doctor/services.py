# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges what runs beside the engine: filterd with its snapshots, and the attestation servers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail, named, not_checked, warning
from ovirt_tcp_plugin.admin.doctor.observations import ObservedSite, ObservedSnapshots, ServerView
from ovirt_tcp_plugin.placement.decision import VmTrust, passing
from ovirt_tcp_plugin.placement.inventory import UNIT_NAME

# The broker writes what changed at once, and everything after each full look at the engine.
MISSED_LISTINGS = 3
# A snapshot may end or be written while filterd is asked.
MARGIN_MS = 2_000
MAX_SKEW_S = 5.0
CERTIFICATE_WARNING_S = 14 * 86_400

_BROKER_LOG = "see why the broker does not write: journalctl -u ovirt-tcp-broker"
_FILTERD_LOG = "journalctl -u ovirt-tcp-filterd"


def snapshots(site: ObservedSite, found: ObservedSnapshots, full_s: float) -> Iterable[DoctorFinding]:
    """Judge the files by which filterd answers.

    Args:
        full_s: the broker's option `intervals.full_s`.
    """
    broker, filterd = found.directories
    if broker != filterd:
        text = f"The broker writes snapshots to {broker}, and filterd reads them in {filterd}."
        step = "set snapshot.directory of broker.yaml and snapshots.directory of filterd.yaml alike, and restart both"
        yield fail("snapshot_directories", text, step)
    for name, fault in sorted(found.faults.items()):
        yield fail("snapshot_refused", f"Snapshot file {name} is refused: {fault}.", f"remove it; {_BROKER_LOG}")
    for pool in site.pools.values():
        own = [found.by_host.get(host.id) for host in site.hosts(pool)]
        files = [one for one in own if one is not None and one.pool_id == pool.cluster_id]
        if len(files) < len(own):
            text = f"Snapshots lack {len(own) - len(files)} of {len(own)} hosts of cluster {pool.name}: these get no VMs."
            yield fail("snapshot_missing", text, _BROKER_LOG)
        elif files and found.now_ms - files[0].written_ms > MISSED_LISTINGS * full_s * 1000:
            age_s = (found.now_ms - files[0].written_ms) // 1000
            text = f"The snapshot of cluster {pool.name} is {age_s} s old: new verdicts and VMs do not reach filterd."
            yield fail("snapshot_stale", text, _BROKER_LOG)
    if found.closed:
        text = f"Not every user may read {named(found.closed)}; filterd has to."
        yield warning("snapshot_mode", text, "let the broker run with a umask of 0022, as its unit does")


def discovery(found: Mapping[str, Collection[str]]) -> Iterable[DoctorFinding]:
    """Judge what answers where the engine asks for its external scheduler.

    Args:
        found: names of units by kind, as `discover` answered.
    """
    foreign = {name for names in found.values() for name in names} - {UNIT_NAME}
    if UNIT_NAME not in found.get("filters", ()) or foreign:
        text = f"What answers on filterd's port is not filterd: it offers {named(foreign) or 'nothing'}."
        step = "stop the other service, such as ovirt-scheduler-proxy, and start ovirt-tcp-filterd"
        yield fail("filterd_foreign", text, step)


def filtering(
    site: ObservedSite,
    found: ObservedSnapshots,
    answers: Mapping[str, Collection[str]],
    now_ms: int,
) -> Iterable[DoctorFinding]:
    """Judge whether filterd lets a VM that nobody knows, which needs trust, run on the trusted hosts only.

    Args:
        answers: the host ids that it let pass, by cluster id.
        now_ms: CLOCK_BOOTTIME of the question.
    """
    names = {host.id: host.name for host in site.listing.hosts}
    for cluster_id, passed in answers.items():
        pool = site.pools[cluster_id]
        files = {host.id: found.by_host.get(host.id) for host in site.hosts(pool)}
        verdicts = {host_id: one.hosts.get(host_id) for host_id, one in files.items() if one is not None}
        trusted, staying = (
            set(passing(VmTrust(None), pool.scope, list(verdicts), verdicts, at_ms))
            for at_ms in (now_ms, now_ms + MARGIN_MS)
        )
        wide, narrow = set(passed) - trusted, trusted & staying - set(passed)
        if wide:
            text = f"filterd lets VMs that need trust run on hosts that are not trusted: {_names(wide, names)}."
            yield fail("filter_wide", text, f"restart ovirt-tcp-filterd; {_FILTERD_LOG}")
        if narrow:
            text = f"filterd refuses hosts that the snapshots call trusted: {_names(narrow, names)}."
            yield fail("filter_narrow", text, f"see whether its user can read the snapshots: {_FILTERD_LOG}")


def servers(views: Sequence[ServerView]) -> Iterable[DoctorFinding]:
    """Judge the attestation servers: that they answer, with a good certificate, and take our token."""
    faults = [fault for view in views for fault in _of_server(view)]
    good = any(view.good for view in views)
    # One of several that is away is no outage.
    yield from (warning(one.code, one.text, one.next_step) if good else one for one in faults)
    for view in views:
        if not view.fault and view.certificate_ends_s < CERTIFICATE_WARNING_S:
            days = int(view.certificate_ends_s // 86_400)
            text = f"The certificate of {view.url} ends in {days} days."
            yield warning("certificate_ends", text, "renew it in time: without it no verdict can be had")


def clocks(views: Sequence[ServerView]) -> Iterable[DoctorFinding]:
    """Judge whether clocks agree. Ages of our own server do not depend on it; certificates, logs and people do."""
    if all(view.ahead_s is None for view in views):
        yield not_checked("No attestation server tells its time.")
    for view in views:
        if view.ahead_s is not None and abs(view.ahead_s) > MAX_SKEW_S:
            way = "ahead of" if view.ahead_s > 0 else "behind"
            text = f"The clock of {view.url} is {abs(view.ahead_s):.0f} s {way} this machine's."
            yield warning("clock_differs", text, "run chronyd or another NTP client on both")


def _of_server(view: ServerView) -> Iterable[DoctorFinding]:
    if view.bad_certificate:
        step = "see verifier.urls and verifier.ca_file of broker.yaml: it has to be the ca.pem that the server's init made"
        yield fail("server_certificate", f"The certificate of {view.url} is not good: {view.fault}.", step)
    elif view.fault:
        text = f"The attestation server {view.url} does not answer: {view.fault}."
        yield fail("server_unreachable", text, "start it, or mend the way to it")
    elif view.status in (401, 403):
        step = "make one by `ovirt-tcp-verifier token add --role viewer` for the broker (OpenAttestation: auth_blob)"
        yield fail("server_token", f"The attestation server {view.url} refuses the broker's token.", step)
    elif not view.good:
        text = f"The attestation server {view.url} answers with status {view.status}."
        yield fail("server_answer", text, "see its log, and verifier.kind and verifier.path of broker.yaml")


def _names(host_ids: Iterable[str], names: Mapping[str, str]) -> str:
    return named(names.get(one, one) for one in host_ids)
