# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is seen of a site: by the broker, the verifier, the engine, and the engine's own journal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin.lab.site import LabSite

UNTRUSTED_EVENT = 9803


class SiteView:
    """A site as it is now; every call asks again."""

    def __init__(self, site: LabSite) -> None:
        self._site = site

    # By the verifier and the broker

    def enrolled_hosts(self) -> set[str]:
        """Return the names of the hosts that are enrolled."""
        reply = self._site.verifier.call("GET", "/v1/hosts")
        return {row["host_name"] for row in reply["hosts"]}

    def verdicts(self) -> list[Mapping[str, Any]]:
        """Return the broker's verdicts."""
        return list(self._site.broker.call("GET", "/v1/hosts")["hosts"])

    def are_trusted(self, names: Iterable[str]) -> bool:
        """Return whether all these hosts are trusted."""
        trusted = {row["name"] for row in self.verdicts() if row["level"] == "trusted"}
        return trusted.issuperset(names)

    def is_untrusted(self, name: str, code: str) -> bool:
        """Return whether a host is untrusted for that reason."""
        untrusted = [row for row in self.verdicts() if row["level"] == "untrusted"]
        return any(row["name"] == name and row["code"] == code for row in untrusted)

    def hosts_inside(self) -> set[str]:
        """Return the hosts inside the wall."""
        (pool,) = self._site.broker.call("GET", "/v1/pools")["pools"]
        return set(pool["hosts_inside"])

    def history(self, *codes: str) -> list[Mapping[str, Any]]:
        """Return the broker's entries with one of these codes, the oldest first."""
        entries = self._site.broker.call("GET", "/v1/history")["history"]
        return [entry for entry in entries if entry["code"] in codes]

    # By the engine

    def host(self, name: str) -> Any:
        """Return a host, as the SDK has it."""
        hosts = self._site.engine.hosts_service().list()
        return next(host for host in hosts if host.name == name)

    def status(self, name: str) -> str:
        """Return a host's status."""
        return str(self.host(name).status.value)

    def texts_of_events(self, code: Optional[int] = None) -> list[str]:
        """Return the texts of the engine's events.

        Args:
            code: of these only.
        """
        events = self._site.engine.events_service().list()
        if code is not None:
            events = [event for event in events if event.code == code]
        return [event.description or "" for event in events]

    # By the lab's hand, which no filter and no cache is between

    def state(self) -> Any:
        """Return the status of each host, and the host of each VM, None for one that is down."""
        return self._site.control("state")

    def place_of(self, vm: str) -> Optional[str]:
        """Return the host of a VM, None if it does not run."""
        place: Optional[str] = self.state()["vms"][vm]
        return place

    def journal(self, since: int = 0) -> list[Mapping[str, Any]]:
        """Return the engine's placements from a number on."""
        return list(self._site.control("journal")[since:])

    def summary(self) -> str:
        """Return what a step that did not hold should show."""
        hosts: dict[str, str] = {}
        for row in self.verdicts():
            hosts[row["name"]] = f"{row['status']} {row['level']} {row['code']}".strip()
        return json.dumps({"hosts": hosts, "vms": self.state()["vms"]})
