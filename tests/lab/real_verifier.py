# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The real verifier, for tests of whole hosts."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from ovirt_tcp_plugin.verifier.store import tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token

ANSWER_WITHIN_MS = 10_000


class RealVerifier:
    """The real verifier as a process of its own, asked as the broker and administrators ask it."""

    def __init__(
        self, directory: Path, processes: Processes, authorities: bytes, **appraisal: Any
    ) -> None:
        (self._port,) = free_ports(1)
        self.url = f"https://127.0.0.1:{self._port}"
        self._processes = processes
        self.ca_file = directory / "state" / "ca.pem"
        self._directory = directory
        (directory / "ek-ca.d").mkdir()
        (directory / "ek-ca.d" / "vendor.pem").write_bytes(authorities)
        self._configure({"profile": "txt+firmware", **appraisal})
        self._call("init", "--name", "127.0.0.1")
        token = self._call("token", "add", "--role", "policy")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = str(self.ca_file)
        self.start()

    def start(self) -> None:
        self._processes.start("verifier", self._command("run"), lambda: listens(self._port))

    def restart(self, **appraisal: Any) -> None:
        """Stop, and start with these options of the appraisal."""
        self._processes.stop("verifier")
        self._configure({"profile": "txt+firmware", **appraisal})
        self.start()

    def enrol(self, host: LabHost) -> None:
        token = secrets.token_hex(16)
        database = Database(f"sqlite:///{self._directory / 'state' / 'verifier.db'}")
        database.transact(lambda c: tokens.add(c, token, Token("enrolment", host.name)))
        database.close()
        host.enrol(token, self.url, self.ca_file)

    def import_from(self, host: LabHost, name: str = "golden") -> None:
        self._post("/v1/reference-values", {"name": name, "host": host.name})

    def add_whole_pcrs(self, values: dict[str, str], bank: str, name: str) -> None:
        """Have these values of whole PCRs be good."""
        for pcr, digest in values.items():
            value = {"bank": bank, "pcr": int(pcr), "component": "", "digest": digest}
            self._post(f"/v1/reference-values/{name}/add", {"value": value})

    def boot_of(self, host: LabHost) -> dict[str, Any]:
        """Return what the host's last evidence proved of its boot."""
        url = f"{self.url}/v1/hosts/{host.name}/boot"
        boot: dict[str, Any] = self._session.get(url, timeout=25).json()
        return boot

    def withdraw(self, name: str = "golden") -> None:
        """Have a set of reference values count no more."""
        url = f"{self.url}/v1/reference-values/{name}"
        response = self._session.delete(url, timeout=25)
        assert response.status_code in (200, 404), response.text

    def refused_import_from(self, host: LabHost) -> str:
        """Return why this host cannot be golden."""
        message = {"name": "refused", "host": host.name}
        response = self._session.post(self.url + "/v1/reference-values", json=message, timeout=25)
        assert response.status_code == 409, response.text
        reason: str = response.json()["reason"]
        return reason

    def result(self, host: LabHost, wait_ms: int = ANSWER_WITHIN_MS) -> dict[str, Any]:
        message = {"hosts": [host.name], "max_age_ms": None, "wait_ms": wait_ms}
        result: dict[str, Any] = self._post("/v1/results", message)["hosts"][0]
        return result

    def listed(self, host: LabHost) -> dict[str, Any]:
        """Return what the listing of hosts shows."""
        reply: dict[str, Any] = self._session.get(self.url + "/v1/hosts", timeout=25).json()
        rows: list[dict[str, Any]] = reply["hosts"]
        return next(row for row in rows if row["host_name"] == host.name)

    def _configure(self, appraisal: dict[str, Any]) -> None:
        content = {
            "server": {
                "address": "127.0.0.1",
                "port": self._port,
                "certificate": str(self._directory / "server.pem"),
                "key": str(self._directory / "server.key"),
            },
            "store": {"directory": str(self._directory / "state")},
            "enrolment": {"ek_authorities": str(self._directory / "ek-ca.d")},
            "appraisal": appraisal,
        }
        (self._directory / "verifier.yaml").write_text(json.dumps(content))

    def _post(self, path: str, content: object) -> dict[str, Any]:
        response = self._session.post(self.url + path, json=content, timeout=25)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def _command(self, *arguments: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "ovirt_tcp_plugin.verifier.main",
            "--config-dir",
            str(self._directory),
            *arguments,
        ]

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            self._command(*arguments), capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def codes(result: dict[str, Any]) -> list[tuple[int, str]]:
    return [(finding["check"], finding["code"]) for finding in result["findings"]]
