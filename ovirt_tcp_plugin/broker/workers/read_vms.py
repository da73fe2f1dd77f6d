# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads single VMs that events name, long before the next listing shows them."""

from __future__ import annotations

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineListings
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.vm_reads import VmRequest
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.clock import Clock

# In one step; the others wait, and count as marked.
MAX_READS = 100


class VmReader:
    """Several threads call the steps again and again: one VM that hangs holds up one of them."""

    def __init__(
        self, state: BrokerState, engine: EngineListings, contact: EngineContact, clock: Clock
    ) -> None:
        self._vm_reads = state.vm_reads
        self._engine = engine
        self._contact = contact
        self._clock = clock

    def step(self) -> None:
        """Read the VMs that are waiting. Raises AccessRefused."""
        self._read_waiting(failing=False)

    def step_again(self) -> None:
        """Read those that could not be read before. Raises AccessRefused."""
        self._read_waiting(failing=True)

    def _read_waiting(self, failing: bool) -> None:
        for _ in range(MAX_READS):
            request = self._vm_reads.begin(failing)
            if request is None:
                return
            self._read(request)

    def _read(self, request: VmRequest) -> None:
        asked_ms = self._clock.now_ms()
        try:
            vm = self._engine.vm(request.vm_id)
        except errors.NotFound:
            self._contact.answered(asked_ms)
            self._vm_reads.gone(request)
        except errors.AccessRefused as e:
            self._vm_reads.unreadable(request, str(e), answers=False)
            raise
        except errors.Error as e:
            self._vm_reads.unreadable(request, str(e), not self._contact.is_away(e))
        else:
            self._contact.answered(asked_ms)
            self._vm_reads.read(request, vm)
