# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The list of checks, and how they are made: probe everything at once, then judge each check."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.doctor import (
    hosts,
    listed,
    probes,
    scheduling_policies,
    services,
    walls,
)
from ovirt_tcp_plugin.admin.doctor.collector import Collector
from ovirt_tcp_plugin.admin.doctor.findings import (
    CheckedFinding,
    DoctorFinding,
    FindingState,
    not_checked,
)
from ovirt_tcp_plugin.admin.doctor.probes import Filterd
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.remote import Remote


class Silence(NamedTuple):
    """What it means that a service does not answer at all."""

    code: str
    next_step: str


# An engine that answers and refuses has codes of its own (`errors.AccessRefused`).
_ENGINE_SILENT = Silence(
    "engine_silent",
    "see section engine of broker.yaml; does the engine run? systemctl status ovirt-engine",
)
_BROKER_SILENT = Silence(
    "broker_silent",
    "systemctl start ovirt-tcp-broker; journalctl -u ovirt-tcp-broker says what keeps it",
)
_FILTERD_SILENT = Silence(
    "filterd_silent",
    "systemctl start ovirt-tcp-filterd.socket ovirt-tcp-filterd; while it is down the engine keeps"
    " all hosts",
)


@dataclasses.dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: stable; the code of its finding when all is well.
        needs: names of the observations that it judges (`probes`).
        judge: from these observations to what is not well.
        good: the sentence for when everything is well.
        silence: its finding when what it needs does not answer; None where that is the finding of
            another check.
    """

    name: str
    needs: tuple[str, ...]
    judge: Callable[..., Iterable[DoctorFinding]]
    good: str
    silence: Optional[Silence] = None


def examine(
    settings: Settings,
    broker: Callable[[], Remote],
    filterd: Filterd,
    open_secrets: Callable[[], Sequence[str]],
    within_s: float,
) -> list[CheckedFinding]:
    """Return the findings of all checks, in their order; at least one of each.

    Args:
        broker: returns the broker's interface, or raises InvalidConfig.
        open_secrets: returns the names of the files with secrets that others may read, or raises
            InvalidConfig.
        within_s: longest time for all of it, in seconds.
    """
    collector = Collector(within_s)
    probes.start_all(collector, settings, broker, filterd, within_s)
    collector.start("open_secrets", open_secrets)
    findings: list[CheckedFinding] = []
    for check in checks(settings):
        for finding in _make(check, collector):
            findings.append(CheckedFinding(check.name, finding))
    return findings


def checks(settings: Settings) -> list[Check]:
    """Return all checks."""
    return [
        *_of_the_engine(),
        *_of_policies(),
        *_of_walls(settings.pools.exempt_vms),
        *_of_filterd(settings.intervals.full_s),
        *_of_servers(),
        *_of_hosts(),
        Check(
            "secrets",
            ("open_secrets",),
            services.secrets,
            "Nobody else may read the files with tokens and passwords.",
        ),
    ]


def _of_the_engine() -> list[Check]:
    return [
        Check(
            "engine",
            ("site",),
            _nothing,
            "The engine answers, and lets the broker's user log in.",
            _ENGINE_SILENT,
        ),
        Check("listed", ("site",), listed.judge, "The engine shows all VMs, hosts and walls."),
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
            _judge_scheduler,
            "The engine's options lead to filterd, and wait for it no longer than they should.",
        ),
    ]


def _of_policies() -> list[Check]:
    return [
        Check("pools", ("site",), scheduling_policies.pools, "There is a trusted pool."),
        Check(
            "pool_policies",
            ("site",),
            scheduling_policies.suspended,
            "The policies of all pools have the filter unit TrustedHosts.",
        ),
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
        Check(
            "trusted_service",
            ("site",),
            scheduling_policies.trusted_service,
            "trusted_service is set on no cluster.",
        ),
        Check(
            "property",
            ("site", "properties"),
            scheduling_policies.marks,
            "VMs can be marked by trusted_host_flag.",
        ),
    ]


def _of_walls(exempt_vms: Sequence[str]) -> list[Check]:
    return [
        Check("broker", ("broker",), _nothing, "The broker answers.", _BROKER_SILENT),
        Check("charge", ("broker",), hosts.charge, "No other broker works at this engine."),
        Check("wall", ("walls",), _same, "Every pool has its wall, with all VMs that need it."),
        Check(
            "left",
            ("site",),
            walls.left,
            "No wall and no quarantine is left where there is no trusted pool.",
        ),
        Check(
            "wall_hosts",
            ("wall_hosts",),
            _same,
            "The walls let in just the hosts that are trusted now.",
        ),
        Check(
            "rules", ("site", "groups"), walls.rules, "No other affinity group contradicts a wall."
        ),
        Check(
            "exempt",
            ("site",),
            functools.partial(walls.exempt, vm_ids=exempt_vms),
            "Every exempt VM exists.",
        ),
        Check(
            "engine_vm",
            ("site", "snapshots"),
            walls.engine_vm,
            "No pool keeps the engine's own VM from starting.",
        ),
        Check(
            "places",
            ("site", "addresses", "servers_at"),
            walls.places,
            "No VM of a pool has its server's address.",
        ),
    ]


def _of_filterd(full_s: float) -> list[Check]:
    return [
        Check(
            "filterd",
            ("units",),
            services.discovery,
            "filterd answers where the engine asks.",
            _FILTERD_SILENT,
        ),
        Check(
            "snapshots",
            ("site", "snapshots"),
            functools.partial(services.snapshots, full_s=full_s),
            "The snapshots are fresh, of this boot, and none is refused.",
        ),
        Check(
            "filter",
            ("filtering",),
            _same,
            "filterd lets VMs run on trusted hosts only, and on all of them.",
        ),
    ]


def _of_servers() -> list[Check]:
    return [
        Check(
            "servers",
            ("servers",),
            services.servers,
            "The attestation servers answer and take the broker's token.",
        ),
        Check(
            "records",
            ("servers",),
            services.records,
            "The attestation servers can read their databases.",
        ),
        Check(
            "clocks",
            ("servers",),
            services.clocks,
            "The attestation servers' clocks agree with this machine's.",
        ),
    ]


def _of_hosts() -> list[Check]:
    return [
        Check(
            "gates",
            ("site", "hooks", "gate"),
            hosts.gates,
            "All hosts of pools that are Up report the gate, unaltered.",
        ),
        Check(
            "hosts",
            ("site", "broker"),
            hosts.placement,
            "All hosts of pools that are Up are trusted.",
        ),
        Check("lockdown", ("broker",), hosts.lockdown, "No host's kernel hides its launch log."),
        Check("quarantine", ("broker",), hosts.quarantine, "No host was taken out of service."),
        Check(
            "guard",
            ("broker",),
            hosts.guards,
            "No guard waits for a decision, no pool is in observation.",
        ),
    ]


def _make(check: Check, collector: Collector) -> list[DoctorFinding]:
    """Return the findings of one check, whatever becomes of it."""
    try:
        observations = [collector.value(name) for name in check.needs]
    except errors.Error as e:
        return [_unobserved(check, e)]
    except Exception as e:  # noqa: BLE001 - the edge of a check: the others are made all the same
        return [not_checked(f"What it needs could not be read ({type(e).__name__}: {e}).")]
    try:
        findings = list(check.judge(*observations))
    except Exception as e:  # noqa: BLE001 - as above
        return [not_checked(f"The check itself failed ({type(e).__name__}: {e}).")]
    return findings or [DoctorFinding(FindingState.OK, check.name, check.good)]


def _unobserved(check: Check, error: errors.Error) -> DoctorFinding:
    """Return the finding of a check whose observations could not be made."""
    if check.silence is None:
        return not_checked(_reason(error))
    meaning = check.silence
    if isinstance(error, errors.AccessRefused):
        meaning = Silence(error.code, error.next_step)
    return DoctorFinding(FindingState.FAIL, meaning.code, _reason(error), meaning.next_step)


def _reason(error: errors.Error) -> str:
    """Return why, without the next step: a finding has that apart."""
    if isinstance(error, errors.AccessRefused):
        return _sentence(error.reason)
    return _sentence(str(error))


def _sentence(text: str) -> str:
    capitalised = text[:1].upper() + text[1:]
    return capitalised if capitalised.endswith(".") else f"{capitalised}."


def _judge_scheduler(options: Any, filterd_at: Any) -> Iterable[DoctorFinding]:
    names, port = filterd_at
    return scheduling_policies.scheduler(options, names, port)


def _nothing(*_: object) -> Iterable[DoctorFinding]:
    """The judge of a check that needs nothing but an answer."""
    return ()


def _same(findings: Sequence[DoctorFinding]) -> Iterable[DoctorFinding]:
    """The judge of what its probe has judged already, more than once."""
    return findings
