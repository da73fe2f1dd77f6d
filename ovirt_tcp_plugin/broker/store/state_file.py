# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's state file: what survives a restart, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, cast

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.charge import NO_CLAIM, SavedClaim
from ovirt_tcp_plugin.messages import json_fields

log = logging.getLogger("broker.memory")

MAX_SIZE = 64 * 1024 * 1024
VERSION = 1
MAX_SEEN = 10_000
MAX_TOKEN_LENGTH = 64
MAX_NUMBER = 2**63


class StateFile:
    """`<directory>/state.json`, with the id of the last event of the engine that was read.

    Attributes:
        last_event: id of the last event of the engine that was taken into account, None if that is
            not known.
        seen: ids of the last events taken into account; an engine start before our own must not
            void verdicts again.
        engine_started_ms: when the last start of the engine was noticed, by the wall clock; None if
            none was.
        claim: the broker's last claim to be in charge.
    """

    def __init__(self, directory: Path) -> None:
        """Take a directory, made if it is missing. Raises InvalidConfig if it cannot be made."""
        try:
            durable.make_directory(directory)
        except OSError as e:
            fault = f"state.directory: {directory} cannot be made: {e.strerror}"
            raise errors.InvalidConfig("broker.yaml", [fault]) from e
        self._path = directory / "state.json"
        self._lock = threading.Lock()
        self.last_event: Optional[int] = None
        self.seen: frozenset[int] = frozenset()
        self.engine_started_ms: Optional[int] = None
        self.claim = NO_CLAIM

    def load(self, state: BrokerState) -> None:
        """Restore what was saved.

        A file that says nothing is set aside, and one that cannot be read is left alone; then every
        host is attested as if for the first time. A broker that did not start would protect nobody.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as e:
            log.error("state unreadable error=%s: every host is attested anew", e)
            return
        try:
            self._restore(content, state)
        except (errors.InvalidMessage, KeyError, TypeError, ValueError, AttributeError) as e:
            log.error("state unreadable error=%s: every host is attested anew", e)
            self._set_aside()

    def save(self, state: BrokerState) -> None:
        """Write what is known now; when this returns, it survives a crash."""
        with self._lock:
            # Encoded under the lock: else a thread that was held up would put an older state over a
            # newer one. And what was read of the engine first: an event or a start that is known
            # here has done to the state what it does.
            content: dict[str, Any] = {
                "version": VERSION,
                "last_event": self.last_event,
                "engine_started_ms": self.engine_started_ms,
                "claim": dataclasses.asdict(self.claim),
                "seen_events": sorted(self.seen)[-MAX_SEEN:],
                "knowledge": state.encode(),
            }
            durable.replace(self._path, json.dumps(content).encode())

    def _set_aside(self) -> None:
        aside = self._path.with_suffix(".broken")
        try:
            self._path.replace(aside)
        except OSError as e:
            log.error("state not set aside error=%s", e)
        else:
            log.error("state set aside file=%s", aside)

    def _restore(self, content: bytes, state: BrokerState) -> None:
        members = json_fields.members(json_fields.parse(content, "state", MAX_SIZE), "state")
        json_fields.integer(members, "version", VERSION, VERSION)
        if members["last_event"] is not None:
            self.last_event = json_fields.integer(members, "last_event", 0, MAX_NUMBER)
        seen_events = json_fields.items(members, "seen_events", MAX_SEEN)
        self.seen = frozenset(int(str(event_id)) for event_id in seen_events)
        # Files of older releases do not have it.
        if members.get("engine_started_ms") is not None:
            started_ms = json_fields.integer(members, "engine_started_ms", 0, MAX_NUMBER)
            self.engine_started_ms = started_ms
        if "claim" in members:
            claim = json_fields.members(members["claim"], "claim")
            token = json_fields.text(claim, "token", MAX_TOKEN_LENGTH)
            self.claim = SavedClaim(token, claim["acts"] is True)
        state.restore(cast("Mapping[str, Any]", members["knowledge"]))
