# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-broker` as a process: what stops its start, and that it stops when told to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from ovirt_tcp_plugin.lab.processes import free_ports

HOOKS = Path(__file__).parents[2] / "hooks" / "engine"


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Return a configuration whose engine and attestation server do not answer."""
    for name in ("engine.password", "verifier.token"):
        (tmp_path / name).write_text("secret", encoding="ascii")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "ca.pem").write_text("", encoding="ascii")
    return {
        "engine": {
            "url": "https://127.0.0.1:1/ovirt-engine/api",
            "username": "broker@internal",
            "password_file": str(tmp_path / "engine.password"),
            "ca_file": str(tmp_path / "ca.pem"),
        },
        "verifier": {
            "urls": ["https://127.0.0.1:2"],
            "token_file": str(tmp_path / "verifier.token"),
        },
        "api": {"port": free_ports(1)[0]},
        "hooks": {"directory": str(HOOKS)},
        "snapshot": {"directory": str(tmp_path / "snapshot.d")},
        "state": {"directory": str(tmp_path / "state")},
    }


def command(tmp_path: Path, options: dict[str, Any], *arguments: str) -> list[str]:
    (tmp_path / "broker.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    return [
        sys.executable,
        "-m",
        "ovirt_tcp_plugin.broker.main",
        "--config-dir",
        str(tmp_path),
        *arguments,
    ]


def run(
    tmp_path: Path, options: dict[str, Any], *arguments: str
) -> subprocess.CompletedProcess[str]:
    given = command(tmp_path, options, *arguments)
    return subprocess.run(given, capture_output=True, text=True, timeout=20, check=False)


def test_config_check_names_every_fault(tmp_path: Path, options: dict[str, Any]) -> None:
    assert run(tmp_path, options, "config", "check").returncode == 0
    options["engine"]["url"] = 3
    options["verifier"]["surprise"] = True
    found = run(tmp_path, options, "config", "check")
    assert found.returncode == 1
    assert "engine.url is not a text" in found.stderr
    assert "unknown option verifier.surprise" in found.stderr


def test_config_show_prints_all_and_no_secret(tmp_path: Path, options: dict[str, Any]) -> None:
    found = run(tmp_path, options, "config", "show")
    shown = json.loads(found.stdout)
    assert shown["verdicts"]["lifetime_s"] == 600.0
    assert "secret" not in found.stdout


@pytest.mark.parametrize(
    ("section", "option", "fault"),
    [
        ("hooks", "directory", "No such file"),
        ("verifier", "token_file", "token"),
    ],
)
def test_what_is_missing_stops_the_start(
    tmp_path: Path, options: dict[str, Any], section: str, option: str, fault: str
) -> None:
    options[section][option] = str(tmp_path / "missing")
    found = run(tmp_path, options, "run")
    assert (found.returncode, "Traceback" in found.stderr) == (1, False)
    assert fault in found.stderr


def test_it_serves_without_an_engine_and_stops_when_told(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    url = f"http://127.0.0.1:{options['api']['port']}/v1/hosts"
    token = run(tmp_path, options, "token", "add", "--role", "viewer").stdout.strip()
    with subprocess.Popen(
        command(tmp_path, options, "run"), stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 15
        while True:
            try:
                answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=15)
    assert answer.json()["hosts"] == []
    assert process.returncode == 0
    assert "Traceback" not in log
    assert "secret" not in log
    assert token not in log


def test_tokens_are_listed_without_their_secrets_and_removed(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    secret = run(
        tmp_path, options, "token", "add", "--role", "operator", "--note", "ovirt-tcp"
    ).stdout.strip()
    identifier, role, end, note = run(tmp_path, options, "token", "list").stdout.split()
    assert (role, end, note) == ("operator", "never", "ovirt-tcp")
    assert all(secret.encode() not in path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert run(tmp_path, options, "token", "remove", identifier).returncode == 0
    assert (
        run(tmp_path, options, "token", "remove", identifier).stderr.strip()
        == f"Error: there is no token {identifier}"
    )
