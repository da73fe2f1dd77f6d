# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who chooses reference values over HTTPS, and calls the server's command."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import click.testing

from ovirt_tcp_plugin.messages import reference_values
from ovirt_tcp_plugin.messages.reference_values import Value
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server

SETS = "/v1/reference-values"

# Calls `ovirt-tcp-verifier` with these arguments.
Run = Callable[..., click.testing.Result]


class Administrator:
    """Chooses reference values."""

    def __init__(self, verifier: Server) -> None:
        self.server = verifier
        self.token = verifier.token("policy")

    def ask(self, method: str, path: str, message: Any = None) -> tuple[int, Any]:
        answer = self.server.call(method, path, message, token=self.token)
        return answer.status_code, answer.json()

    def add(
        self, component: str, digest: str, staged: bool = False, **more: str
    ) -> tuple[int, Any]:
        value = reference_values.encode_value(
            Value("sha256", 17, component, digest, staged=staged, **more)
        )
        return self.ask("POST", f"{SETS}/golden/add", {"value": value})

    def preview(self, **change: Any) -> dict[str, tuple[str, str]]:
        status, answer = self.ask("POST", "/v1/reference-preview", change)
        assert status == 200, answer
        return {row["host_name"]: (row["now"], row["then"]) for row in answer["changes"]}

    def levels(self) -> dict[str, str]:
        _, answer = self.ask("GET", "/v1/hosts")
        return {host["host_name"]: host["level"] for host in answer["hosts"]}

    def import_from(
        self, agent: Agent, name: str, staged: bool = False, **more: bool
    ) -> tuple[int, Any]:
        # The launch of a software TPM is short: its only module is taken for tboot's policy.
        more = {"without_kernel": True, **more}
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            message = {"name": name, "host": agent.name, "staged": staged, **more}
            imported = pool.submit(self.ask, "POST", SETS, message)
            agent.answer(agent.challenge())
            return imported.result()
