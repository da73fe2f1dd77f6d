# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What systemd's units promise: paths, users, restarts without end, and little exposure."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ovirt_tcp_plugin.attester.settings import Hooks, StateDirectory
from ovirt_tcp_plugin.broker.settings import SnapshotOptions, StateOptions
from ovirt_tcp_plugin.verifier.settings import Store

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "examples" / "systemd"
ROLES = ("agent", "broker", "filterd", "verifier")
DIRECTORIES = {
    "agent": {StateDirectory().directory, Hooks().directory},
    "broker": {StateOptions().directory, SnapshotOptions().directory},
    "filterd": set(),
    "verifier": {Store().directory},
}
# Between two starts. One that fails at once costs a second of one CPU, except filterd's.
PAUSES = {"agent": "5", "broker": "2", "filterd": "100ms", "verifier": "2"}
# systemd-analyze security, from 0 to 10.
EXPOSED_AT_MOST = 4.0
OFFLINE = ("security", "--offline=yes")


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Return the directives of a sample, all values of each."""
    directives: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            directives.setdefault(section, {}).setdefault(key, []).append(value)
    return directives


def test_the_engine_finds_the_socket_open_and_nothing_stops_the_restarts() -> None:
    service = unit("ovirt-tcp-filterd.service")
    listening = unit("ovirt-tcp-filterd.socket")
    for unit_file in (service, listening):
        assert unit_file["Unit"]["Before"] == ["ovirt-engine.service"]
    assert service["Unit"]["Requires"] == service["Unit"]["After"] == ["ovirt-tcp-filterd.socket"]
    promised = {
        "Type": "notify",
        "Restart": "always",
        "RestartSec": "100ms",
        "WatchdogSec": "5",
        "LimitNOFILE": "8192",
        "MemoryMax": "768M",
    }
    assert {key: service["Service"][key] for key in promised} == {
        key: [value] for key, value in promised.items()
    }
    assert (listening["Socket"]["ListenStream"], listening["Socket"]["Backlog"]) == (
        ["127.0.0.1:18781"],
        ["4096"],
    )
    assert listening["Install"]["WantedBy"] == ["sockets.target"]
    # A connection flood must not have systemd close the socket.
    assert listening["Socket"]["TriggerLimitIntervalSec"] == ["0"]


HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectControlGroups": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "LockPersonality": "yes",
    "SystemCallArchitectures": "native",
    "CapabilityBoundingSet": "",
    "UMask": "0022",
}


@pytest.mark.parametrize("role", ROLES)
def test_every_service_has_a_user_of_its_own_and_no_more_than_it_needs(role: str) -> None:
    service = unit(f"ovirt-tcp-{role}.service")["Service"]
    assert service["User"] == service["Group"] == [f"ovirt-tcp-{role}"]
    assert {key: service.get(key) for key in HARDENED} == {
        key: [value] for key, value in HARDENED.items()
    }
    assert service["ExecStart"] == [f"/usr/bin/ovirt-tcp-{role} run"]
    # The agent's device is the TPM.
    assert service.get("PrivateDevices", ["no"]) == ["no" if role == "agent" else "yes"]
    families = "AF_UNIX AF_NETLINK" if role == "filterd" else "AF_UNIX AF_INET AF_INET6"
    assert service["RestrictAddressFamilies"] == [families]


@pytest.mark.parametrize("role", ROLES)
def test_no_service_is_given_up_for_good(role: str) -> None:
    """A peer may be late by hours, such as the database's machine after a loss of power."""
    sections = unit(f"ovirt-tcp-{role}.service")
    assert sections["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert sections["Service"]["Restart"] == ["always"]
    (pause,) = sections["Service"]["RestartSec"]
    assert pause == PAUSES[role]


@pytest.mark.parametrize("role", ROLES)
def test_systemd_makes_the_directories_that_the_options_name_by_default(role: str) -> None:
    service = unit(f"ovirt-tcp-{role}.service")["Service"]
    directories = set()
    for name in service.get("StateDirectory", []):
        directories.add(Path("/var/lib") / name)
        assert service["StateDirectoryMode"] == ["0700"]
    for name in service.get("RuntimeDirectory", []):
        directories.add(Path("/run") / name)
        assert service["RuntimeDirectoryMode"] == ["0755"]
        assert service["RuntimeDirectoryPreserve"] == ["yes"]
    assert directories == DIRECTORIES[role]


def test_every_program_of_a_unit_is_a_console_script() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    scripts = parser["options.entry_points"]["console_scripts"]
    for path in UNITS.glob("*.service"):
        assert f"\n{path.stem} = " in scripts


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="without systemd-analyze")
def test_systemd_takes_the_units_and_calls_none_exposed(tmp_path: Path) -> None:
    for path in [*UNITS.glob("*.service"), *UNITS.glob("*.socket")]:
        # The programs are not installed here, and systemd looks for them.
        text = re.sub("^ExecStart=.*$", "ExecStart=/bin/true", path.read_text(), flags=re.M)
        (tmp_path / path.name).write_text(text)
    services = sorted(str(path) for path in tmp_path.glob("*.service"))
    verified = analyze("verify", *services, str(tmp_path / "ovirt-tcp-filterd.socket"))
    assert [line for line in verified.splitlines() if "ovirt-tcp" in line] == []
    for service in services:
        exposure = re.search(r"exposure level for \S+: ([0-9.]+)", analyze(*OFFLINE, service))
        assert exposure, service
        assert float(exposure[1]) <= EXPOSED_AT_MOST, service


def analyze(*arguments: str) -> str:
    """Return what systemd-analyze prints."""
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return done.stdout + done.stderr


def test_the_example_of_a_firewall_lets_engine_and_broker_connect_to_the_sockets_port() -> None:
    rules = (UNITS / "ovirt-tcp-filterd.nft").read_text()
    (address,) = unit("ovirt-tcp-filterd.socket")["Socket"]["ListenStream"]
    (broker,) = unit("ovirt-tcp-broker.service")["Service"]["User"]
    (rule,) = [line.strip() for line in rules.splitlines() if "dport" in line]
    port = address.rpartition(":")[2]
    assert rule == (
        f'tcp dport {port} ct state new meta skuid != {{ "root", "ovirt", "{broker}" }} reject '
        "with tcp reset"
    )
