# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The list of checks, and how they are made: gather everything at once, then judge each check by what it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.doctor import hosts, probes, scheduling_policies, services, walls
from ovirt_tcp_plugin.admin.doctor.collector import Collector
from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, FindingState, not_checked
from ovirt_tcp_plugin.admin.doctor.probes import Filterd
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.remote import Remote

# Code and next step for when one of the three does not answer at all. An engine that answers and
# refuses has codes of its own (`errors.AccessRefused`).
_ENGINE_SILENT = "engine_silent", "see section engine of broker.yaml; does the engine run? systemctl status ovirt-engine"
_BROKER_SILENT = "broker_silent", "systemctl start ovirt-tcp-broker; journalctl -u ovirt-tcp-broker says what keeps it"
_FILTERD_SILENT = (
    "filterd_silent",
    "systemctl start ovirt-tcp-filterd.socket ovirt-tcp-filterd; while it is down the engine keeps all hosts",
)


@dataclasses.dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: stable; the code of its finding when all is well.
        needs: names of what it judges by.
        judge: from the values of these to what is not well.
        good: the sentence for when nothing is.
        silent_code, silent_step: code and next step for when what it needs does not answer, where that is its finding.
    """

    name: str
    needs: tuple[str, ...]
    judge: Callable[..., Iterable[DoctorFinding]]
    good: str
    silent_code: str = ""
    silent_step: str = ""


def examine(
    options: Settings, broker: Callable[[], Remote], filterd: Filterd, within_s: float
) -> list[tuple[str, DoctorFinding]]:
    """Return the findings with the names of their checks, in the order of the checks; every check has one at least.

    Args:
        broker: gives the broker's interface, or raises InvalidConfig.
        within_s: longest time for all of it, in seconds.
    """
    collector = Collector(within_s)
    probes.begin(collector, options, broker, filterd, within_s)
    return [(check.name, finding) for check in checks(options) for finding in _make(check, collector)]


def checks(options: Settings) -> list[Check]:
    """Return all checks."""
    return [*_checks_of_settings(), *_checks_of_work(options)]


def _checks_of_settings() -> list[Check]:
    """What an administrator set at the engine."""
    return [
        Check("engine", ("site",), _nothing, "The engine answers, and takes the broker's user.", *_ENGINE_SILENT),
        Check(
            "permits",
            ("permits",),
            scheduling_policies.rights,
            "The broker's user has the rights that it needs, not all.",
        ),
        Check(
            "unit",
            ("site", "started"),
            scheduling_policies.unit,
            "The engine knows the filter unit TrustedHosts, and asks it.",
        ),
        Check(
            "scheduler",
            ("scheduler", "filterd_at"),
            lambda found, at: scheduling_policies.scheduler(found, *at),
            "The engine's options lead to filterd, and wait for it no longer than they should.",
        ),
        Check("pools", ("site",), scheduling_policies.pools, "There is a trusted pool."),
        Check(
            "policies",
            ("site", "policy_units"),
            scheduling_policies.policies,
            "The policies of all pools have what they need.",
        ),
        Check(
            "policy_edits",
            ("site", "policy_units"),
            scheduling_policies.stuck,
            "No refused edit of a scheduling policy stayed in the engine's memory.",
        ),
        Check("trusted_service", ("site",), scheduling_policies.trusted_service, "trusted_service is set on no cluster."),
        Check("property", ("site", "properties"), scheduling_policies.marks, "VMs can be marked by trusted_host_flag."),
    ]


def _checks_of_work(options: Settings) -> list[Check]:
    """What broker, filterd, attestation servers and hosts make of it."""
    full_s, exempt_vms = options.intervals.full_s, options.pools.exempt_vms
    return [
        Check("broker", ("broker",), _nothing, "The broker answers.", *_BROKER_SILENT),
        Check("wall", ("walls",), _same, "Every pool has its wall, with all VMs that need it."),
        Check(
            "left",
            ("site",),
            walls.left,
            "No wall and no quarantine is left where there is no trusted pool.",
        ),
        Check("wall_hosts", ("wall_hosts",), _same, "The walls let in just the hosts that are trusted now."),
        Check("rules", ("site", "groups"), walls.rules, "No other affinity group contradicts a wall."),
        Check("exempt", ("site",), lambda seen: walls.exempt(seen, exempt_vms), "Every exempt VM is there."),
        Check("engine_vm", ("site", "snapshots"), walls.engine_vm, "No engine's own VM is held by a pool."),
        Check("places", ("site", "addresses", "servers_at"), walls.places, "No VM of a pool has its server's address."),
        Check("filterd", ("units",), services.discovery, "filterd answers where the engine asks.", *_FILTERD_SILENT),
        Check(
            "snapshots",
            ("site", "snapshots"),
            lambda seen, found: services.snapshots(seen, found, full_s),
            "The snapshots are fresh, of this boot, and none is refused.",
        ),
        Check("filter", ("filtering",), _same, "filterd lets run on trusted hosts only, and on all of them."),
        Check("servers", ("servers",), services.servers, "The attestation servers answer and take the broker's token."),
        Check("clocks", ("servers",), services.clocks, "The attestation servers' clocks agree with this machine's."),
        Check("gates", ("site", "hooks", "gate"), hosts.gates, "All hosts of pools that are Up report the gate, unaltered."),
        Check("hosts", ("site", "broker"), hosts.placement, "All hosts of pools that are Up are trusted."),
        Check("quarantine", ("broker",), hosts.quarantine, "No host was taken out of service."),
        Check("guard", ("broker",), hosts.guards, "No guard waits for a decision."),
    ]


def _make(check: Check, collector: Collector) -> list[DoctorFinding]:
    """Return the findings of one check, whatever becomes of it."""
    try:
        values = [collector.value(name) for name in check.needs]
    except errors.AccessRefused as e:
        if check.silent_code:
            return [DoctorFinding(FindingState.FAIL, e.code, _sentence(e.reason), e.next_step)]
        return [not_checked(_sentence(e.reason))]
    except errors.Error as e:
        if check.silent_code:
            return [DoctorFinding(FindingState.FAIL, check.silent_code, _sentence(str(e)), check.silent_step)]
        return [not_checked(_sentence(str(e)))]
    except Exception as e:  # noqa: BLE001 - the edge of a check: the others are made all the same
        return [not_checked(f"The look for it failed ({type(e).__name__}: {e}).")]
    try:
        found = list(check.judge(*values))
    except Exception as e:  # noqa: BLE001 - as above
        return [not_checked(f"The check itself failed ({type(e).__name__}: {e}).")]
    return found or [DoctorFinding(FindingState.OK, check.name, check.good)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _nothing(*_: object) -> Iterable[DoctorFinding]:
    return ()


def _same(found: Sequence[DoctorFinding]) -> Iterable[DoctorFinding]:
    return found
