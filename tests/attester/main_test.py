# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-agent` as an administrator and systemd call it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import boot_hook, config, errors
from ovirt_tcp_plugin.attester import enrolment, keys
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.main import main
from ovirt_tcp_plugin.attester.settings import AgentSettings, Verifier
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.messages import evidence
from ovirt_tcp_plugin.messages.findings import next_step
from ovirt_tcp_plugin.verifier.authority import Authority
from tests.attester.fake_verifier import FakeVerifier, http, issue

EXAMPLE = Path(__file__).parents[2] / "examples/agent.yaml"


def call(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config-dir", str(directory), *arguments])


@pytest.fixture
def enrolled(
    host: LabHost, state: AgentState, authority: Authority, verifier: FakeVerifier
) -> LabHost:
    """A host that was enrolled, and its configuration."""
    tpm = host.connect()
    with keys.endorsement_key(tpm) as endorsement:
        state.keep_ak(keys.create_ak(tpm, endorsement, "ecc-p256"))
    tpm.close()
    key = ec.generate_private_key(ec.SECP256R1())
    state.keep_client(key, issue(authority, enrolment._certificate_request(key, "host-1")))
    host.configure(verifier.url, verifier.ca_file)
    return host


def wait_for(condition: Callable[[], object]) -> None:
    """Return once a process has done something; the test's time limit ends it otherwise."""
    while not condition():
        time.sleep(0.01)


def test_the_example_shows_every_option_at_its_default(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_bytes(EXAMPLE.read_bytes())

    loaded = config.load(AgentSettings, "agent", tmp_path)

    urls = ("https://attestation.example.com:8443",)
    assert loaded == AgentSettings(Verifier(urls))
    assert yaml.safe_load(EXAMPLE.read_bytes()) == config.show(loaded)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({}, "verifier.urls is missing"),
        ({"verifier": {"urls": []}}, "urls is empty"),
        ({"verifier": {"urls": ["http://a:8443"]}}, "url 'http://a:8443' is not https://NAME:PORT"),
        ({"verifier": {"urls": ["https://a:8443/v1/x"]}}, "is not https://NAME:PORT"),
        ({"verifier": {"urls": ["https://a"], "retry_most": 0}}, "retry_most must be above 0"),
        ({"tpm": {"key": "rsa-1024"}}, "key 'rsa-1024' is not one of ecc-p256, rsa-2048"),
        ({"tpm": {"timeout": 0}}, "timeout must be above 0"),
        ({"tpm": {"tcti": "swtpm"}}, "unknown option tpm.tcti"),
    ],
)
def test_config_check_names_the_fault(content: dict[str, Any], fault: str, tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(
        json.dumps({"verifier": {"urls": ["https://a:1"]}, **content} if content else {})
    )

    result = call(tmp_path, "config", "check")

    assert result.exit_code == 1
    assert fault in result.output


def test_config_show_prints_what_is_in_force(enrolled: LabHost) -> None:
    result = call(enrolled.config_directory, "config", "show")

    assert json.loads(result.output)["host"] == {"name": "host-1"}


def test_an_unnamed_host_has_its_full_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "Node-7.Example.COM")

    assert AgentSettings(Verifier(("https://a",))).host.known_as == "node-7.example.com"


@pytest.mark.parametrize("command", [[], ["enrol"], ["run"], ["measure"], ["status"], ["config"]])
def test_help_teaches(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])

    assert result.exit_code == 0
    assert len(result.output.splitlines()) >= 6


def test_run_says_that_the_host_is_not_enrolled(host: LabHost, verifier: FakeVerifier) -> None:
    host.configure(verifier.url, verifier.ca_file)

    done = subprocess.run(
        host.agent_command("run"), capture_output=True, text=True, timeout=20, check=False
    )

    assert done.returncode == 1
    assert "this host is not enrolled: run `ovirt-tcp-agent enrol`" in done.stderr
    assert "Traceback" not in done.stderr


def test_measure_says_that_there_is_no_key(host: LabHost, verifier: FakeVerifier) -> None:
    host.configure(verifier.url, verifier.ca_file)

    result = call(host.config_directory, "measure")

    assert result.exit_code == 1
    assert (
        "there is no attestation key (ak.json): run `ovirt-tcp-agent enrol` first" in result.output
    )


def test_measure_describes_the_boot(enrolled: LabHost) -> None:
    result = call(enrolled.config_directory, "measure", "--pcr", "17", "--pcr", "4")

    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith(f"boot {enrolled.boot_id_file.read_text().strip()}, up ")
    assert [line.split(":")[0] for line in lines[1:3]] == ["sha256 PCR 4", "sha256 PCR 17"]
    assert lines[3].endswith("19 events, tells of a measured launch")
    assert lines[4].startswith("firmware log: ")


def test_measure_describes_what_is_wrong(enrolled: LabHost) -> None:
    enrolled.boot(measured_launch=False, forged_log=b"rubbish")
    enrolled.firmware_log_file.unlink()

    result = call(enrolled.config_directory, "measure", "--bank", "sha512")

    assert "the TPM has no such bank active" in result.output
    assert "txt log: 7 bytes, malformed event log" in result.output
    assert "firmware log: none" in result.output


def test_measure_prints_evidence(enrolled: LabHost) -> None:
    result = call(enrolled.config_directory, "measure", "--evidence")

    assert list(evidence.decode(result.output.encode()).pcrs["sha256"]) == [17, 18]


def test_enrol_tells_a_refusal_in_one_line(
    host: LabHost, verifier: FakeVerifier, tmp_path: Path
) -> None:
    host.configure(verifier.url, verifier.ca_file)
    (tmp_path / "token").write_text("secret-token")
    verifier.answers = [http(403, {"code": "token_unknown", "reason": "the token is not known"})]

    result = call(host.config_directory, "enrol", "--token-file", str(tmp_path / "token"))

    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "making two keys in the TPM; a slow chip takes up to a minute for each",
        "Error: refused (token_unknown): the token is not known",
    ]


def test_status_before_the_first_report(enrolled: LabHost) -> None:
    result = call(enrolled.config_directory, "status")

    assert result.exit_code == 1
    assert "the agent has not run" in result.output


def test_status_tells_level_findings_and_fault(enrolled: LabHost, state: AgentState) -> None:
    finding = {
        "check": 8,
        "code": "event_differs",
        "text": "PCR 17 differs",
        "expected": "aa",
        "seen": "bb",
    }
    state.keep_status(
        {
            "level": "untrusted",
            "findings": [finding],
            "server": "https://a",
            "time": int(time.time()) - 5,
            "error": "x",
        }
    )

    result = call(enrolled.config_directory, "status")

    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("untrusted, said https://a ")
    assert lines[1:] == [
        "  check 8 event_differs: PCR 17 differs",
        "    expected: aa",
        "    seen: bb",
        f"    next: {next_step('event_differs')}",
        "the last try failed: x",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, "trusted, said", id="it counts"),
        pytest.param({"lifetime_ms": 1}, "unknown, because the verdict ended", id="silent"),
        pytest.param({"boot_id": "x"}, "unknown, because the host has booted since", id="rebooted"),
    ],
)
def test_status_shows_trust_only_while_it_counts(
    changes: dict[str, object], expected: str, enrolled: LabHost, state: AgentState
) -> None:
    kept = {
        "level": "trusted",
        "findings": [],
        "server": "https://a",
        "time": int(time.time()),
        "boot_id": enrolled.boot_id_file.read_text().strip(),
        "boottime_ms": boottime_ms() - 5000,
        "lifetime_ms": 600_000,
    }
    state.keep_status({**kept, **changes})

    assert call(enrolled.config_directory, "status").output.startswith(expected)


def test_status_says_why_a_log_is_not_there(enrolled: LabHost, state: AgentState) -> None:
    state.keep_status({"error": ""})
    absence = enrolled.txt_log_file.with_name("txt_event_log.absent")
    enrolled.txt_log_file.unlink()
    absence.write_text(f"locked_down\n{boot_hook.WAY_OUT}\n")

    result = call(enrolled.config_directory, "status")

    assert result.output == f"{boot_hook.WAY_OUT}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_at_once_while_it_waits_for_the_server(
    number: signal.Signals, enrolled: LabHost, verifier: FakeVerifier
) -> None:
    verifier.answers = [verifier.hold]
    enrolled.start_agent()
    wait_for(lambda: verifier.requests)

    started = time.monotonic()
    enrolled._processes.send("agent", number)
    wait_for(lambda: not enrolled.agent_running)

    assert time.monotonic() - started < 2
    assert enrolled.agent_log().splitlines()[-1] == "INFO attester stopped"
    tpm = enrolled.connect()
    assert tpm.handles(0x80000000) == ()
    tpm.close()


def test_stops_at_once_while_it_pauses(enrolled: LabHost, verifier: FakeVerifier) -> None:
    verifier.close()
    enrolled.start_agent()
    wait_for(lambda: "error" in enrolled.status())

    started = time.monotonic()
    enrolled.stop_agent()

    assert time.monotonic() - started < 2
    assert "Connection refused" in enrolled.status()["error"]


def test_a_killed_agent_comes_back(enrolled: LabHost, verifier: FakeVerifier) -> None:
    """It starts again on what it left: files, and an AK still loaded in the TPM."""
    challenge = evidence.encode_challenge(evidence.Challenge(bytes(32), {"sha256": (17,)}, 30_000))
    for _ in range(3):
        done = len(verifier.requests)
        verifier.answers = [
            http(200, challenge),
            http(200, {"level": "trusted", "findings": []}),
            verifier.hold,
        ]
        enrolled.start_agent()
        wait_for(lambda done=done: len(verifier.requests) == done + 3)
        enrolled.kill_agent()

    assert enrolled.status()["level"] == "trusted"


def test_the_agent_logs_neither_nonce_nor_quote_nor_signature(
    enrolled: LabHost, verifier: FakeVerifier
) -> None:
    challenge = evidence.encode_challenge(evidence.Challenge(b"n" * 32, {"sha256": (17,)}, 30_000))
    verifier.answers = [
        http(200, challenge),
        http(200, {"level": "trusted", "findings": []}),
        verifier.hold,
    ]
    enrolled.start_agent()
    wait_for(lambda: len(verifier.requests) == 3)
    enrolled.stop_agent()

    reported = verifier.requests[1][1]
    for name in ("nonce", "attest", "signature"):
        assert reported[name] not in enrolled.agent_log()


def test_the_state_directory_is_for_its_owner(host: LabHost, verifier: FakeVerifier) -> None:
    host.configure(verifier.url, verifier.ca_file)
    host.state_directory.chmod(0o755)

    with pytest.raises(errors.InvalidConfig, match="0700 is needed"):
        AgentState(host.state_directory)
    assert "0700 is needed" in call(host.config_directory, "status").output
