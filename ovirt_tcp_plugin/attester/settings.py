# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Options of `/etc/ovirt-tcp/agent.yaml`."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

from ovirt_tcp_plugin import bounds, config
from ovirt_tcp_plugin.attester.measure import Sources
from ovirt_tcp_plugin.attester.templates import ATTESTATION_TEMPLATES

MAX_WAIT_S = 3600


@dataclasses.dataclass(frozen=True)
class Verifier:
    """Where the evidence goes."""

    # Addresses of the attestation servers, `https://NAME:8443`; the next one is asked when one is
    # away.
    urls: tuple[str, ...]
    # Authority of the servers' certificates, PEM: ca.pem of `ovirt-tcp-verifier init`.
    ca_file: Path = Path("/etc/ovirt-tcp/verifier-ca.pem")
    # Longest pause (seconds) between two tries while no server answers; the first is 1 s, each next
    # one twice as long.
    retry_most: float = 30.0

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("urls is empty")
        for url in self.urls:
            # Over plain HTTP anybody could read a token; the bearer of one enrols as this host.
            if not url.startswith("https://") or len(url.split("/")) > 4 or url.endswith("//"):
                raise ValueError(f"url {url!r} is not https://NAME:PORT")
        if self.retry_most <= 0:
            raise ValueError("retry_most must be above 0")
        bounds.check_between("retry_most", self.retry_most, 0, MAX_WAIT_S)


@dataclasses.dataclass(frozen=True)
class HostNaming:
    """What this host is called."""

    # The host's address in the engine, lower case. Empty means the machine's own full name.
    name: str = ""

    @property
    def known_as(self) -> str:
        """The name to enrol under."""
        return (self.name or socket.getfqdn()).lower()


@dataclasses.dataclass(frozen=True)
class TpmOptions:
    """The TPM."""

    # /dev/tpmrm0; /dev/tpm0 for a TPM 1.2; or a software TPM: unix:PATH or tcp:HOST:PORT.
    device: str = "/dev/tpmrm0"
    # Longest wait (seconds) for one command; making an RSA key takes a slow chip a minute.
    timeout: float = 90.0
    # Kind of the attestation key: ecc-p256, or rsa-2048 for chips without ECC.
    key: str = "ecc-p256"
    # Only for a TPM 1.2, to enrol: file with the owner's secret, 40 hexadecimal digits. Empty means
    # the well-known one, twenty zeros (`tpm_takeownership -y -z`). The SRK's must be well known.
    owner_secret: str = ""

    def __post_init__(self) -> None:
        if self.key not in ATTESTATION_TEMPLATES:
            raise ValueError(f"key {self.key!r} is not one of {', '.join(ATTESTATION_TEMPLATES)}")
        if self.timeout <= 0:
            raise ValueError("timeout must be above 0")
        bounds.check_between("timeout", self.timeout, 0, MAX_WAIT_S)


@dataclasses.dataclass(frozen=True)
class StateDirectory:
    """Where the agent keeps its identity."""

    # Directory, owned by the agent's user, mode 0700.
    directory: Path = Path("/var/lib/ovirt-tcp/agent")


@dataclasses.dataclass(frozen=True)
class BootFiles:
    """Where the host tells of its boot."""

    # The kernel's id of this boot.
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    # Event log of the measured launch, left there by the boot-time hook.
    txt_log: Path = Path("/run/ovirt-tcp/boot/txt_event_log")
    # Event log of the firmware, left there by the same hook; securityfs shows it to root only.
    firmware_log: Path = Path("/run/ovirt-tcp/boot/firmware_event_log")

    @property
    def sources(self) -> Sources:
        """The same, for `measure`."""
        return Sources(self.boot_id, {"txt": self.txt_log, "firmware": self.firmware_log})


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the VDSM hooks of this host read."""

    # Directory for the signed verdict and the summary; owned by the agent's user, readable by all,
    # empty after a boot.
    directory: Path = Path("/run/ovirt-tcp/agent")


@dataclasses.dataclass(frozen=True)
class AgentSettings:
    """All sections."""

    verifier: Verifier
    host: HostNaming = HostNaming()
    tpm: TpmOptions = TpmOptions()
    state: StateDirectory = StateDirectory()
    boot: BootFiles = BootFiles()
    hooks: Hooks = Hooks()


def load_settings(config_dir: Path) -> AgentSettings:
    """Return the agent's options. Raises InvalidConfig."""
    return config.load(AgentSettings, "agent", config_dir)
