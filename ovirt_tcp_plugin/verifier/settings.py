# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Options of `/etc/ovirt-tcp/verifier.yaml`."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from ovirt_tcp_plugin import bounds
from ovirt_tcp_plugin.messages import tpm2

# Which PCRs a host must show good values for.
# Some fifty vendors, in EL9's package keylime-base.
KEYLIME_STORE = Path("/usr/share/keylime/tpm_cert_store")

PROFILES: Mapping[str, tuple[int, ...]] = {
    "txt": (17, 18),
    "txt-legacy": (17, 18, 19),
    "txt+firmware": (0, 17, 18),
    "uefi": (0, 2, 4, 7),
    "uefi+grub": (0, 2, 4, 7, 8, 9, 14),
    "uefi+uki": (0, 2, 4, 7, 11, 12, 13),
}
# Of a TPM 2.0, and of a TPM 1.2.
BANKS = ("sha256", "sha1")
TPM12_FAMILY = "1.2"
MAX_PROCESSES = 64
MAX_POLL_DEADLINE_S = 600
# What is believed for longer than a day was not attested.
MAX_LIFETIME_S = 86_400


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Where the server listens, and its TLS identity."""

    # Address to listen on; empty means all.
    address: str = ""
    # Port, OpenAttestation's.
    port: int = 8443
    # Processes that serve on this port, each with a share of the connections: as many as there are
    # cores for it. The limits below hold in each of them.
    processes: int = 1
    # Certificate and key, PEM; `ovirt-tcp-verifier init` makes them in the state directory if these
    # are absent.
    certificate: Path = Path("/var/lib/ovirt-tcp/verifier/server.pem")
    key: Path = Path("/var/lib/ovirt-tcp/verifier/server.key")
    # Longest time (seconds) that a poll waits for hosts which have not answered yet.
    poll_deadline: float = 3.0
    # Networks from which OpenAttestation's questions are answered without a token, such as
    # 192.0.2.0/24: for clients that cannot show one.
    oat_networks: tuple[str, ...] = ()
    # Networks from which /metrics is answered without a token.
    metrics_networks: tuple[str, ...] = ()
    # Requests a second that one peer may go on asking: an agent by its certificate and address,
    # everybody else by address. Of IPv6 a whole /64 counts as one address, here and below.
    requests_per_second: float = 50.0
    # Part of one core's time that whoever asks about hosts may go on taking, with a token at one
    # address, or at one address of oat_networks. It pays for the time that its requests really
    # take, after a second's worth of them waits, and is put off with 429 if that takes long.
    question_share: float = 0.25
    # New connections that one address may open. Agents and broker keep theirs; raise it where many
    # hosts share an address.
    connections_per_second: float = 20.0
    # Connections on which no caller is known yet; beyond it the oldest is dropped.
    unknown_connections: int = 500
    # Connections of one peer on which it is known; beyond it the peer's oldest is dropped.
    peer_connections: int = 100
    # Questions of one peer that may wait for hosts at a time.
    peer_questions: int = 20

    def __post_init__(self) -> None:
        for network in (*self.oat_networks, *self.metrics_networks):
            try:
                ipaddress.ip_network(network)
            except ValueError as e:
                raise ValueError(f"network {network!r} is not like 192.0.2.0/24: {e}") from e
        for limit in dataclasses.fields(self):
            if (
                limit.type in ("int", "float")
                and limit.name != "port"
                and getattr(self, limit.name) <= 0
            ):
                raise ValueError(f"{limit.name} must be above 0")
        if self.processes > MAX_PROCESSES:
            raise ValueError(f"processes must be at most {MAX_PROCESSES}")
        bounds.check_between("port", self.port, 0, bounds.MAX_PORT)
        bounds.check_between("poll_deadline", self.poll_deadline, 0, MAX_POLL_DEADLINE_S)


@dataclasses.dataclass(frozen=True)
class Store:
    """Where the server keeps what it knows."""

    # Directory of the server's own authority and database; owned by the server's user, mode 0700.
    directory: Path = Path("/var/lib/ovirt-tcp/verifier")
    # Database. Empty means SQLite in that directory. Several servers share
    # `postgresql://USER@HOST/DATABASE`; they need the same ca.pem and ca.key, too. The password
    # comes from the server user's ~/.pgpass.
    url: str = ""

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.url or f"sqlite:///{self.directory / 'verifier.db'}"


@dataclasses.dataclass(frozen=True)
class Enrolment:
    """Whose TPMs are believed."""

    # Directories and files of the TPM vendors' roots and intermediates: *.pem, *.crt or *.cer. One
    # that does not exist is passed over. None at all means that no host can enrol.
    ek_authorities: tuple[Path, ...] = (Path("/etc/ovirt-tcp/ek-ca.d"), KEYLIME_STORE)
    # Directories and files of the lists of certificates that vendors revoked: *.crl, *.pem or
    # *.der. None need exist; SIGHUP reads them again.
    ek_revocations: tuple[Path, ...] = (Path("/etc/ovirt-tcp/ek-crl.d"),)
    # Believe a TPM without an EK certificate at its first enrolment. Then the token alone says that
    # it is a TPM at all; such hosts are marked. Better: `ovirt-tcp-verifier ek add`.
    first_use: bool = False


@dataclasses.dataclass(frozen=True)
class Appraisal:
    """What a good boot is."""

    # PCRs that must be good: txt (17, 18), txt-legacy (17, 18, 19), txt+firmware (0, 17, 18), uefi
    # (0, 2, 4, 7), uefi+grub (those, 8, 9, 14) or uefi+uki (0, 2, 4, 7, 11, 12, 13).
    profile: str = "txt"
    # How long a result may be relied on, in seconds from the moment its nonce was issued.
    lifetime: float = 600.0
    # How soon after its last report the server asks a host again by itself, in seconds, whether
    # somebody wants to know or not: so the gates stay open while the broker is away. Never later
    # than after half of the lifetime, and up to a fifth earlier, so that the hosts spread.
    refresh: float = 200.0
    # Believe hosts with a TPM 1.2, too. All that it signs rests on SHA-1, it counts no resets, and
    # does not notice a kernel started by kexec; such hosts are marked. Their reference values are
    # of the bank sha1.
    tpm12: bool = False

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"profile {self.profile!r} is not one of {', '.join(PROFILES)}")
        if self.lifetime <= 0:
            raise ValueError("lifetime must be above 0")
        bounds.check_between("lifetime", self.lifetime, 0, MAX_LIFETIME_S)
        if not self.refresh > 0:
            raise ValueError("refresh must be above 0")

    @property
    def lifetime_ms(self) -> int:
        """The same lifetime in milliseconds."""
        return int(self.lifetime * 1000)

    @property
    def refresh_ms(self) -> int:
        """The longest time in milliseconds between two reports of a host."""
        return int(min(self.refresh, self.lifetime / 2) * 1000)

    def believes(self, tpm_family: str) -> bool:
        """Return whether hosts with a TPM of this family are judged at all."""
        return self.tpm12 or tpm_family != TPM12_FAMILY

    @property
    def profile_pcrs(self) -> str:
        """The PCRs of the profile, as a text that results are kept with."""
        return ",".join(map(str, PROFILES[self.profile]))

    def required_in(self, bank: str) -> tpm2.Selection:
        """Return the PCRs of the profile."""
        return {bank: PROFILES[self.profile]}


@dataclasses.dataclass(frozen=True)
class VerifierSettings:
    """All sections."""

    server: ServerOptions = ServerOptions()
    store: Store = Store()
    enrolment: Enrolment = Enrolment()
    appraisal: Appraisal = Appraisal()
