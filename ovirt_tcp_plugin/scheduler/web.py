# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's external scheduler: `discover`, `runFilters`, `runCostFunctions`,
`runLoadBalancing`.

Source of the rules: `ExternalSchedulerBrokerImpl`. The engine keeps *all* hosts when no answer
comes or it cannot be parsed, so this never raises: in doubt it answers, well-formed, that nobody
passes, and why.
"""

from __future__ import annotations

import collections
import datetime
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.placement import filter_unit
from ovirt_tcp_plugin.scheduler import trusted_hosts, xmlrpc
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory

log = logging.getLogger("filterd")

# Of lines that are not written yet, the oldest are lost.
MAX_QUEUED_LINES = 10_000
WRITE_EVERY_S = 0.2
# Faults of snapshots that a refusal tells.
MAX_FAULTS = 3
# The engine's log takes 10,000 characters (`MaxAuditLogMessageLength`); people do not.
MAX_REASON_LENGTH = 2000
MAX_ID_LENGTH = 40
# No VM to move, and no hosts to move it to.
NO_BALANCING = ("", ())


class Scheduler:
    """The four methods over a snapshot directory. `answer` never raises."""

    def __init__(self, directory: SnapshotDirectory) -> None:
        self._directory = directory
        self._lines: collections.deque[tuple[Any, ...]] = collections.deque(maxlen=MAX_QUEUED_LINES)
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._keep_writing, daemon=True)
        self._writer.start()

    def answer(self, body: bytes) -> bytes:
        """Return the reply to a request."""
        try:
            return self._answer(body)
        except errors.Error as e:
            return self.refuse(str(e))
        except Exception as e:  # noqa: BLE001 - the edge: whatever happened, the engine must get an answer
            self._log("fault", repr(e))
            fault = f"internal fault ({type(e).__name__})"
            return self.refuse(f"{fault}; the log of ovirt-tcp-filterd says more")

    def refuse(self, reason: str) -> bytes:
        """Return the reply to what is no call."""
        return xmlrpc.encode_answer(refusal(reason))

    def close(self) -> None:
        """Write the last log lines."""
        self._closed.set()
        self._writer.join(2)

    def _answer(self, body: bytes) -> bytes:
        began = time.perf_counter()
        call = xmlrpc.parse_call(body)
        value = self._dispatch(call)
        encoded = xmlrpc.encode_answer(value)
        if call.method == "runFilters":
            took_ms = (time.perf_counter() - began) * 1000
            vm_id = call.parameters[2:3]
            passed = len(value["result"])
            reason = value["errors"][:1]
            self._log("runFilters", vm_id, passed, reason, round(took_ms, 2))
        return encoded

    def _dispatch(self, call: xmlrpc.Call) -> dict[str, Any]:
        arguments = call.parameters
        if call.method == "discover" and not arguments:
            return _offer()
        if call.method == "runFilters" and len(arguments) == 4:
            return self._run_filters(*arguments)
        if call.method == "runCostFunctions" and len(arguments) == 4:
            return refusal("ovirt-tcp has no cost function")
        if call.method == "runLoadBalancing" and len(arguments) == 3:
            # The engine takes a VM and its hosts out of the list before it looks at the code, and
            # an exception there ends balancing for all clusters (`getBalanceResult`).
            return {**refusal("ovirt-tcp has no load balancing"), "result": NO_BALANCING}
        shown = f"{call.method[:40]}/{len(arguments)}"
        return refusal(f"unknown method or wrong number of arguments: {shown}")

    def _run_filters(
        self, units: object, hosts: object, vm_id: object, properties: object
    ) -> dict[str, Any]:
        unit_names = _texts(units)
        host_ids = _texts(hosts)
        if unit_names is None or host_ids is None or not isinstance(vm_id, str):
            return refusal("runFilters wants lists of names and host ids, and a VM id")
        foreign = sorted(set(unit_names) - {filter_unit.NAME})
        if foreign or not unit_names:
            names = ", ".join(foreign)[:100]
            return refusal(f"this scheduler has no filter {names}, only {filter_unit.NAME}")
        pools = self._directory.by_host
        asked = _properties(properties)
        accepted = trusted_hosts.accept(pools, host_ids, vm_id, asked, boottime_ms())
        if host_ids and not accepted.hosts:
            reasons = [*accepted.reasons, *self._faults()]
            return refusal(_sentence(vm_id, len(host_ids), reasons))
        return _answer_of(0, accepted.hosts, [])

    def _faults(self) -> list[str]:
        """Return what is wrong with the snapshots: it may be why nobody passes."""
        faults = list(self._directory.faults.items())[:MAX_FAULTS]
        clauses = [f"snapshot {name[:80]}: {reason[:200]}" for name, reason in faults]
        if self._directory.unread:
            clauses.insert(0, f"{self._directory.unread} snapshots are still to be read")
        return clauses

    def _log(self, *line: Any) -> None:
        # Nobody is waited for or woken: neither a slow disk nor the writer may hold the engine's
        # cluster lock.
        self._lines.append(line)

    def _keep_writing(self) -> None:
        while not self._closed.wait(WRITE_EVERY_S):
            self._write_lines()
        self._write_lines()

    def _write_lines(self) -> None:
        while self._lines:
            line = self._lines.popleft()
            log.info("%s", " ".join(map(str, line)))


def _offer() -> dict[str, Any]:
    """Return the units that this scheduler has: one filter."""
    moment = datetime.datetime.now(datetime.timezone.utc)
    description = filter_unit.offered_description(moment, os.urandom(4).hex())
    unit = [description, filter_unit.PROPERTIES]
    return {"filters": {filter_unit.NAME: unit}, "scores": {}, "balance": {}}


def refusal(reason: str) -> dict[str, Any]:
    """Return the reply by which no host passes.

    One reason, because the engine writes each as an ERROR event of its own, without any limit, and
    asks again and again for highly available VMs (`EXTERNAL_SCHEDULER_ERROR`).
    """
    return _answer_of(1, [], [reason])


def _answer_of(code: int, hosts: Sequence[str], reasons: list[str]) -> dict[str, Any]:
    return {"result_code": code, "result": hosts, "errors": reasons, "plugin_errors": {}}


def _sentence(vm_id: str, asked: int, reasons: Sequence[str]) -> str:
    """Return why a VM finds no host; the clause of the most hosts first, for a portal that cuts."""
    why = "; ".join(reasons)
    sentence = f"{why}. VM {vm_id[:MAX_ID_LENGTH]} may run on none of {asked} hosts."
    return sentence[:MAX_REASON_LENGTH]


def _properties(value: object) -> dict[str, str]:
    """Return the properties of a call that have a value, as texts."""
    if not isinstance(value, dict):
        return {}
    return {str(name): str(text) for name, text in value.items() if text is not None}


def _texts(value: object) -> Optional[list[str]]:
    """Return the value if it is a list of texts, else None."""
    if not isinstance(value, list):
        return None
    try:
        "".join(value)  # a look at each of a thousand would take longer
    except TypeError:
        return None
    return value
