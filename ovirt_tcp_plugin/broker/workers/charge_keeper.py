# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Speaks with other brokers at the same engine, so that one of them is in charge (`state.charge`).

Messages go straight to the engine: one that waited among other events would be answered too late.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineEventLog
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.charge import (
    AGAIN_MS,
    Charge,
    ChargeMessage,
    MessageKind,
    Standing,
    parse,
)
from ovirt_tcp_plugin.broker.state.readout import ChargeState
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.placement.inventory import Event, Notice

log = logging.getLogger("broker.charge")

# The history numbers its events by the seconds since 1970, which are more than this.
MAX_NUMBER = 2**30
# A second broker is an error once a day; it claims again far more often.
REPORTED_EVERY_MS = 86_400_000
# A broker that was refused so long ago would have claimed again.
GONE_AFTER_MS = 2 * AGAIN_MS
_TAKES_OVER = f"the other takes over within {AGAIN_MS // 60_000 + 1} minutes"


class ChargeKeeper:
    """Thread-safe. One thread calls `step` again and again."""

    def __init__(
        self, state: BrokerState, engine: EngineEventLog, state_file: StateFile, clock: Clock
    ) -> None:
        self._state = state
        self._engine = engine
        self._state_file = state_file
        self._clock = clock
        self._lock = threading.Lock()
        self._machine = machine_name()
        self._charge = Charge(self._machine, _make_token, clock.now_ms(), before=state_file.claim)
        # By machine: when its broker was last refused, and last reported.
        self._refused_ms: dict[str, int] = {}
        self._reported_ms: dict[str, int] = {}

    def acts(self) -> bool:
        """Return whether this broker changes anything at the engine."""
        with self._lock:
            return self._charge.acts

    def view(self) -> ChargeState:
        """Return how it is now."""
        with self._lock:
            now_ms = self._clock.now_ms()
            others: set[str] = set()
            if self._charge.standing is Standing.PASSIVE:
                others.add(self._charge.other)
            for machine, refused_ms in self._refused_ms.items():
                if now_ms - refused_ms < GONE_AFTER_MS:
                    others.add(machine)
            return ChargeState(self._machine, self._charge.acts, tuple(sorted(others)))

    def take_event(self, event: Event) -> None:
        """Take a new event of the engine into account, if it is a message."""
        if event.code not in events.EXTERNAL:
            return
        message = parse(event.text)
        if message is not None:
            with self._lock:
                self._charge.take(event.id, message)

    def doubt(self) -> None:
        """Events of the engine were missed."""
        with self._lock:
            self._charge.doubt(self._clock.now_ms())

    def step(self) -> None:
        """See what follows from the messages so far, and write what is due. Raises Unavailable."""
        with self._lock:
            acted = self._charge.acts
            standing = self._charge.standing
            now_ms = self._clock.now_ms()
            self._charge.look(now_ms)
            due = self._charge.due(now_ms)
        self._take_change(standing, acted)
        for message in due:
            self._write(message)

    def _take_change(self, standing: Standing, acted: bool) -> None:
        charge = self._charge
        if charge.saved() != self._state_file.claim:
            self._state_file.claim = charge.saved()
            self._state.changes.touch(walls=False, pools=())
        if charge.acts and not acted:
            log.info("in charge machine=%s", self._machine)
            self._state.walls.take_over()
        if charge.standing is Standing.PASSIVE and standing is not Standing.PASSIVE:
            log.error("passive: another broker is in charge machine=%s", charge.other)
            self._state.tell(_passive(charge.other))

    def _write(self, message: ChargeMessage) -> None:
        now_ms = self._clock.now_ms()
        notice = self._notice(message, now_ms)
        try:
            self._engine.add_event(notice, secrets.randbelow(MAX_NUMBER) + 1)
        except (errors.Conflict, errors.NotFound) as e:
            log.warning("message refused kind=%s error=%s", message.kind.value, e)
        finally:
            with self._lock:
                self._charge.written(message, now_ms)

    def _notice(self, message: ChargeMessage, now_ms: int) -> Notice:
        machine = message.machine
        trailer = message.trailer()
        if message.kind is MessageKind.CLAIM:
            text = f"ovirt-tcp-broker on {machine} asks whether another one is in charge."
            return Notice("broker_claim", "normal", f"{text} {trailer}")
        if message.kind is MessageKind.CHARGE:
            text = f"ovirt-tcp-broker on {machine} is in charge of this engine's pools."
            return Notice("broker_charge", "normal", f"{text} {trailer}")
        with self._lock:
            other = self._charge.machine_of(message.subject)
            self._refused_ms[other] = now_ms
            reported_ms = self._reported_ms.get(other)
            is_news = reported_ms is None or now_ms - reported_ms >= REPORTED_EVERY_MS
            if is_news:
                self._reported_ms[other] = now_ms
        text = (
            f"A second ovirt-tcp-broker runs for this engine, on {other}. The one on {machine} is "
            "in charge, and the other changes nothing. Stop one of them: "
            f"systemctl disable --now ovirt-tcp-broker; if it is the one on {machine}, "
            f"{_TAKES_OVER}."
        )
        return Notice("second_broker", "error" if is_news else "normal", f"{text} {trailer}")


def machine_name() -> str:
    """Return the name of this machine, in one word."""
    return "-".join(socket.gethostname().split())[:255] or "unknown"


def _make_token() -> str:
    return secrets.token_hex(8)


def _passive(other: str) -> Notice:
    text = (
        f"Another ovirt-tcp-broker, on {other}, is in charge of this engine's pools. This one "
        "changes nothing at the engine: it only watches, attests and writes snapshots. Stop one "
        f"of them: systemctl disable --now ovirt-tcp-broker; if it is the one on {other}, "
        "this one takes over by itself."
    )
    return Notice("second_broker", "error", text, event=False)
