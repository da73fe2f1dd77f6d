# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The administrator's command against interfaces that answer, refuse, lie or are away."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin.admin.cli import COMMANDS, main
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.ear import SignedResult
from ovirt_tcp_plugin.messages.result import Level
from tests.serving import serving

HOST = {
    "host_name": "host-4.lab",
    "level": "untrusted",
    "findings": [
        {
            "check": 8,
            "code": "no_launch",
            "text": "no launch took place",
            "expected": "aa",
            "seen": "ff",
        }
    ],
    "age_ms": 2500,
    "lifetime_ms": 600_000,
    "boot_id": "b",
    "endorsed_by": "vendor",
    "tpm_family": "1.2",
}


class Interface(http.server.ThreadingHTTPServer):
    """Verifier and broker in one, on loopback; answers what the test put in."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.messages: list[Any] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Interface

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        message = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.messages.append(json.loads(message) if message else None)
        status, content = self.server.answers.get(
            self.path.split("?")[0], (404, {"code": "NotFound", "reason": "nothing"})
        )
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def interface() -> Iterator[Interface]:
    with serving(Interface()) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, interface: Interface) -> Path:
    url = f"http://127.0.0.1:{interface.server_address[1]}"
    (tmp_path / "token").write_text("secret\n")
    one = f"{{url: '{url}', token_file: {tmp_path / 'token'}}}"
    (tmp_path / "cli.yaml").write_text(f"verifier: {one}\nbroker: {one}\n")
    return tmp_path


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config-dir", str(config), *arguments])


@pytest.mark.parametrize(
    ("status", "content", "text"),
    [
        (
            401,
            {"code": "unauthenticated", "reason": "this needs viewer"},
            "refused (unauthenticated): this needs viewer",
        ),
        (500, b"<html>", "status 500 and malformed answer"),
        (200, b"[]", "malformed answer"),
        (302, b"", "status 302"),
    ],
)
def test_a_peer_that_refuses_or_talks_nonsense_is_one_plain_line(
    interface: Interface, config: Path, status: int, content: Any, text: str
) -> None:
    interface.answers["/v1/hosts"] = (status, content)
    done = run(config, "hosts")
    assert done.exit_code == 1
    assert text in done.output
    assert "Traceback" not in done.output


def test_a_peer_that_is_away_is_named(config: Path) -> None:
    (config / "cli.yaml").write_text(
        f"broker: {{url: 'http://127.0.0.1:1', token_file: {config / 'token'}}}"
    )
    done = run(config, "pools")
    assert done.exit_code == 1
    assert "the broker at http://127.0.0.1:1 is unavailable" in done.output
    assert "refused" in done.output


def test_a_missing_address_or_token_is_named(config: Path, tmp_path: Path) -> None:
    (config / "cli.yaml").write_text("{}")
    assert "verifier.url is missing" in run(config, "hosts").output
    (config / "token").unlink()
    (config / "cli.yaml").write_text(
        f"verifier: {{url: 'http://127.0.0.1:1', token_file: {config / 'token'}}}"
    )
    assert "the token cannot be read" in run(config, "hosts").output


def test_hosts_are_an_aligned_table_without_colour_in_a_pipe(
    interface: Interface, config: Path
) -> None:
    interface.answers["/v1/hosts"] = (200, {"hosts": [HOST]})
    lines = run(config, "hosts").output.splitlines()
    assert lines == [
        "HOST        LEVEL      AGE  TPM  TPM BY  WHY",
        "host-4.lab  untrusted  2 s  1.2  vendor  no launch took place",
    ]
    assert interface.asked[0][2] == "Bearer secret"


def test_hosts_come_as_json_for_programs(interface: Interface, config: Path) -> None:
    interface.answers["/v1/hosts"] = (200, {"hosts": [HOST]})
    assert json.loads(run(config, "hosts", "--json").output) == [HOST]


def test_explain_tells_every_check_with_both_values(interface: Interface, config: Path) -> None:
    interface.answers["/v1/results"] = (200, {"hosts": [HOST]})
    output = run(config, "explain", "host-4.lab").output
    assert "host-4.lab is untrusted (evidence is 2 s old, of boot b)" in output
    assert "check 8, no_launch: no launch took place\n  expected aa\n  seen     ff" in output


BOOT = {
    "bank": "sha256",
    "values": {"17": "aa", "18": "cc"},
    "steps": [{"pcr": 17, "component": "mle", "digest": "bb", "text": "tboot\x1b[2J"}],
    "notes": ["the header has a hash that is not known"],
}


@pytest.mark.parametrize("level", ["trusted", "untrusted"])
def test_explain_tells_the_boot_of_any_host_step_by_step(
    interface: Interface, config: Path, level: str
) -> None:
    interface.answers["/v1/results"] = (200, {"hosts": [{**HOST, "level": level}]})
    interface.answers["/v1/hosts/host-4.lab/boot"] = (200, BOOT)

    output = run(config, "explain", "host-4.lab").output

    assert "its boot, as its TPM proved it in bank sha256:\n  PCR 17 aa\n    bb tboot" in output
    assert "  PCR 18 cc, without proven steps\n  the header has a hash" in output
    assert "\x1b" not in output
    told = json.loads(run(config, "explain", "--json", "host-4.lab").output)
    assert told["boot"] == BOOT


STRANGER = {
    **HOST,
    "level": "unknown",
    "findings": [
        {
            "check": 0,
            "code": "not_enrolled",
            "text": "the host is not enrolled",
            "expected": "",
            "seen": "",
        }
    ],
}


def test_explain_shows_what_was_passed_over_in_the_logs(interface: Interface, config: Path) -> None:
    interface.answers["/v1/results"] = (200, {"hosts": [{**HOST, "level": "trusted"}]})
    note = "the firmware log has 3 digests of the unknown algorithm 0x0012"
    interface.answers["/v1/hosts/host-4.lab/boot"] = (200, {**BOOT, "notes": [note]})
    assert f"\n  {note}\n" in run(config, "explain", "host-4.lab").output


def test_explain_takes_a_hosts_name_at_the_engine_too(interface: Interface, config: Path) -> None:
    interface.answers["/v1/results"] = (200, {"hosts": [STRANGER]})
    known = {"id": "uuid", "name": "host-4", "verifier_name": "host-4.lab"}
    interface.answers["/v1/hosts"] = (200, {"hosts": [known]})
    run(config, "explain", "host-4")
    asked = [message["hosts"] for message in interface.messages if message]
    assert asked == [["host-4"], ["host-4.lab"]]


@pytest.mark.parametrize("status", [200, 404])
def test_explain_of_a_stranger_fails_with_a_next_step(
    interface: Interface, config: Path, status: int
) -> None:
    interface.answers["/v1/results"] = (200, {"hosts": [STRANGER]})
    interface.answers["/v1/hosts"] = (status, {"hosts": []})
    done = run(config, "explain", "nosuch")
    assert done.exit_code == 4
    assert "`ovirt-tcp hosts` lists the enrolled hosts" in done.output


def test_the_demo_wants_its_six_hosts() -> None:
    done = CliRunner().invoke(main, ["demo", "--hosts", "5"])
    assert done.exit_code == 2
    assert "6<=x<=200" in done.output


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A verdict of this machine's boot, and the directory with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "one.pem").write_bytes(key.public_key().public_bytes(encoding, form))
    here = Clock()
    said = SignedResult("host-1", "ab" * 32, Level.TRUSTED, here.boot_id, here.now_ms(), 600_000)
    file = tmp_path / "verdict.jwt"
    file.write_text(ear.sign(said, key, 1_700_000_000))
    return file, keys


def test_a_verdict_is_verified_without_any_server(signed: tuple[Path, Path]) -> None:
    file, keys = signed
    told = CliRunner().invoke(main, ["verdict", "verify", str(file), "--keys", str(keys)])
    assert told.exit_code == 0, told.output
    assert told.output.startswith("host-1 was trusted in boot ")
    assert "it holds for 59" in told.output


def test_a_changed_verdict_is_refused(signed: tuple[Path, Path]) -> None:
    file, keys = signed
    header, claims, signature = file.read_text().split(".")
    file.write_text(f"{header}.{claims}.{signature[::-1]}")
    refused = CliRunner().invoke(main, ["verdict", "verify", str(file), "--keys", str(keys)])
    assert refused.exit_code == 1
    assert "bad_signature" in refused.output


def test_verdicts_cannot_be_voided_before_a_moment_to_come(config: Path) -> None:
    refused = CliRunner().invoke(
        main, ["--config-dir", str(config), "verdict", "void", "--before", "2199-01-01T00:00:00Z"]
    )
    assert refused.exit_code == 2
    assert "--before is in the future" in refused.output


def test_voiding_names_the_hosts(interface: Interface, config: Path) -> None:
    interface.answers["/v1/results/void"] = (200, {"hosts": ["host-1", "host-2"]})
    told = CliRunner().invoke(
        main, ["--config-dir", str(config), "verdict", "void", "--before", "2026-01-01T00:00:00Z"]
    )
    assert told.output == "void: host-1, host-2\n"


# Each of them takes a good part of a second to load.
HEAVY = {"cryptography", "ovirtsdk4", "requests", "tornado", "yaml"}
CALL = """
import sys
from ovirt_tcp_plugin.admin.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*{name.partition(".")[0] for name in sys.modules})
"""


def loaded_by(*arguments: str) -> set[str]:
    """Return the names of the packages that are loaded when a command has ended."""
    command = [sys.executable, "-c", CALL, *arguments]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    return set(ended.stdout.splitlines()[-1].split())


class TestLoading:
    def test_an_unknown_command_is_an_error(self) -> None:
        result = CliRunner().invoke(main, ["verdcts"])
        assert result.exit_code == 2
        assert "No such command 'verdcts'" in result.output

    @pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
    def test_no_help_text_loads_what_it_does_not_need(self, name: str) -> None:
        arguments = [name, "--help"] if name else ["--help"]
        assert loaded_by(*arguments) & HEAVY == set()

    def test_a_question_loads_no_more_than_configuration_and_client(self, config: Path) -> None:
        loaded = loaded_by("--config-dir", str(config), "hosts")
        assert loaded & {"cryptography", "ovirtsdk4", "tornado"} == set()
