# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Options of `/etc/ovirt-tcp/broker.yaml`."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from ovirt_tcp_plugin import bounds

OVIRT_TCP = "ovirt-tcp"
KINDS = (OVIRT_TCP, "oat-1.0", "oat-1.5", "oat-2")

# A server that does not know its hosts within this time is asked again; no question waits longer.
MAX_WAIT_S = 60
MAX_TIMEOUT_S = 3600
# What is believed for longer than a day was not attested.
MAX_LIFETIME_S = 86_400

# The very object is the sign that a configuration does not name a file.
DEFAULT_TOKEN_FILE = Path("/etc/ovirt-tcp/verifier.token")


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """The oVirt engine."""

    # Its API, such as https://engine.example.com/ovirt-engine/api.
    url: str
    # User with the smallest role that works; never admin@internal.
    username: str
    # File with its password, mode 0600.
    password_file: Path = Path("/etc/ovirt-tcp/engine.password")
    # Authority of the engine's web certificate (on the engine machine: apache-ca.pem).
    ca_file: Path = Path("/etc/pki/ovirt-engine/apache-ca.pem")
    # Longest time (seconds) for one call; listing thousands of VMs takes some.
    timeout_s: float = 30.0
    # What the engine's service writes when it starts; it shows restarts where the broker runs on
    # the engine machine.
    start_file: Path = Path("/var/lib/ovirt-engine/engine.up")

    def __post_init__(self) -> None:
        if not self.url.startswith("https://"):
            raise ValueError("url does not start with https://")
        if self.timeout_s <= 0:
            raise ValueError("timeout_s is not above 0")
        bounds.check_between("timeout_s", self.timeout_s, 0, MAX_TIMEOUT_S)


@dataclasses.dataclass(frozen=True)
class AttestationServers:
    """What the attestation servers of every kind have: their addresses, and their authority."""

    urls: tuple[str, ...]
    ca_file: Path
    connect_timeout_s: float


@dataclasses.dataclass(frozen=True)
class OvirtTcpServers(AttestationServers):
    """Our own attestation servers."""

    token_file: Path
    wait_s: float


@dataclasses.dataclass(frozen=True)
class OatServers(AttestationServers):
    """OpenAttestation servers of one release, which is the option `kind`."""

    release: str
    auth_blob: str
    path: str
    deadline_s: float


@dataclasses.dataclass(frozen=True)
class VerifierOptions:
    """The attestation servers, whatever their kind: the section as it is written."""

    # Its addresses, such as https://attest.example.com:8443; the next is asked when one does not
    # answer.
    urls: tuple[str, ...]
    # What it is: ovirt-tcp, or an OpenAttestation: oat-1.0, oat-1.5 (to 1.7), oat-2.
    kind: str = OVIRT_TCP
    # Authority of its certificate, PEM.
    ca_file: Path = Path("/etc/ovirt-tcp/verifier-ca.pem")
    # File with a token of role viewer (kind ovirt-tcp; refused with another kind).
    token_file: Path = DEFAULT_TOKEN_FILE
    # Sent as x-auth-blob (OpenAttestation; refused with kind ovirt-tcp).
    auth_blob: str = ""
    # Path in front of /PollHosts (OpenAttestation; refused with kind ovirt-tcp); empty means the
    # usual one of that release.
    path: str = ""
    # Hosts in one question, and questions under way at once.
    batch_size: int = 20
    connections: int = 16
    # Longest time (seconds) to connect; and that the server may wait for its hosts (kind
    # ovirt-tcp).
    connect_timeout_s: float = 5.0
    wait_s: float = 5.0
    # Longest time (seconds) for a whole question. OpenAttestation 1.x itself waits 50 s for a dead
    # host.
    deadline_s: float = 60.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        self._refuse_options_of_other_kinds()
        if not self.urls:
            raise ValueError("urls is empty")
        if not all(url.startswith("https://") for url in self.urls):
            raise ValueError("urls has an address that does not start with https://")
        if not 1 <= self.batch_size <= 1000:
            raise ValueError("batch_size is not between 1 and 1000")
        if not 1 <= self.connections <= 64:
            raise ValueError("connections is not between 1 and 64")
        if not 0 < self.wait_s <= MAX_WAIT_S:
            raise ValueError(f"wait_s is not between 0 and {MAX_WAIT_S}")
        if self.connect_timeout_s <= 0:
            raise ValueError("connect_timeout_s is not above 0")
        bounds.check_between("connect_timeout_s", self.connect_timeout_s, 0, MAX_TIMEOUT_S)
        if self.deadline_s <= self.wait_s:
            raise ValueError("deadline_s is not above wait_s")
        bounds.check_between("deadline_s", self.deadline_s, 0, MAX_TIMEOUT_S)

    def ovirt_tcp(self) -> OvirtTcpServers:
        """Return the options that count for kind ovirt-tcp."""
        return OvirtTcpServers(
            urls=self.urls,
            ca_file=self.ca_file,
            connect_timeout_s=self.connect_timeout_s,
            token_file=self.token_file,
            wait_s=self.wait_s,
        )

    def openattestation(self) -> OatServers:
        """Return the options that count for the other kinds."""
        return OatServers(
            urls=self.urls,
            ca_file=self.ca_file,
            connect_timeout_s=self.connect_timeout_s,
            release=self.kind,
            auth_blob=self.auth_blob,
            path=self.path,
            deadline_s=self.deadline_s,
        )

    def _refuse_options_of_other_kinds(self) -> None:
        """Refuse what would have no effect: whoever wrote it meant another kind of server."""
        if self.kind == OVIRT_TCP:
            for name, value in (("auth_blob", self.auth_blob), ("path", self.path)):
                if value:
                    raise ValueError(
                        f"{name} is an option of OpenAttestation servers, but kind is {self.kind}: "
                        f"remove {name}, or set kind to the release of the server"
                    )
        elif self.token_file is not DEFAULT_TOKEN_FILE:
            raise ValueError(
                f"token_file is an option of kind {OVIRT_TCP}, but kind is {self.kind}: "
                "remove token_file, or set auth_blob if the server wants one"
            )


@dataclasses.dataclass(frozen=True)
class VerdictOptions:
    """How long a verdict counts."""

    # Longest life of a verdict, in seconds from its birth; the server may say less.
    lifetime_s: float = 600.0
    # Part of its life after which a verdict is renewed, and the random part of that, so that hosts
    # spread out.
    refresh: float = 0.5
    jitter: float = 0.1
    # Seconds after which an untrusted host is asked again: it may have been repaired.
    untrusted_refresh_s: float = 30.0

    def __post_init__(self) -> None:
        if self.lifetime_s <= 0 or self.untrusted_refresh_s <= 0:
            raise ValueError("lifetime_s and untrusted_refresh_s must be above 0")
        for name in ("lifetime_s", "untrusted_refresh_s"):
            bounds.check_between(name, getattr(self, name), 0, MAX_LIFETIME_S)
        in_range = 0 < self.refresh < 1 and 0 <= self.jitter < 1
        if not in_range or self.refresh * (1 + self.jitter) >= 1:
            raise ValueError("refresh with its jitter must lie between 0 and 1")


@dataclasses.dataclass(frozen=True)
class StartupOptions:
    """Attestation of all hosts at the start of broker or engine, stage by stage."""

    # Hosts in the first stage, and in each later one (AttestationFirstStageSize,
    # AttestationSecondStageSize of 2013).
    first_stage_query_size: int = 10
    second_stage_query_size: int = 20

    def __post_init__(self) -> None:
        for size in (self.first_stage_query_size, self.second_stage_query_size):
            if not 1 <= size <= 1000:
                raise ValueError("a stage must have between 1 and 1000 hosts")


@dataclasses.dataclass(frozen=True)
class PoolOptions:
    """Exceptions in trusted pools."""

    # Ids of VMs that may run anywhere, such as the verifier's own or a DNS server's. The
    # hosted-engine VM always may.
    exempt_vms: tuple[str, ...] = ()
    # Engine host name: name that the attestation server knows, where this is not the host's
    # address.
    host_names: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class IntervalOptions:
    """How often the engine is looked at, in seconds."""

    # Hosts. Events: half of it, and 0.3 s at most; 0.8 s when none has come for a minute.
    poll_s: float = 5.0
    # Everything: clusters, policies, VMs and walls.
    full_s: float = 60.0

    def __post_init__(self) -> None:
        if self.poll_s <= 0 or self.full_s < self.poll_s:
            raise ValueError("poll_s must be above 0, and full_s not below it")
        bounds.check_between("full_s", self.full_s, 0, MAX_TIMEOUT_S)


@dataclasses.dataclass(frozen=True)
class SnapshotOptions:
    """What filterd answers from."""

    # Directory of the snapshot files.
    directory: Path = Path("/run/ovirt-tcp/snapshot.d")


@dataclasses.dataclass(frozen=True)
class GuardOptions:
    """A mass event must not evacuate a pool."""

    # More than this many hosts of a pool, and more than this share of it, found untrusted within
    # the window delay their quarantine until an administrator decides; in a pool of up to 5 hosts
    # more than one. All pools together may lose as many as the largest alone, and at least
    # `hosts`. Their placement is refused at once all the same.
    hosts: int = 2
    share: float = 0.2
    window_s: float = 600.0
    # A host that turns untrusted, though it stayed Up since it attested well, stays in service for
    # so long: its boot is the same, so the reference values may be wrong, and others will follow.
    # One that restarted leaves at once. About the life of a verdict: every host is attested again
    # meanwhile.
    series_s: float = 600.0

    def __post_init__(self) -> None:
        if self.hosts < 0:
            raise ValueError("hosts is below 0")
        if not 0 <= self.share <= 1:
            raise ValueError("share is not between 0 and 1")
        if self.window_s <= 0:
            raise ValueError("window_s is not above 0")
        if not 0 <= self.series_s <= self.window_s:
            raise ValueError("series_s is not between 0 and window_s")


@dataclasses.dataclass(frozen=True)
class ApiOptions:
    """The broker's own interface. Callers show a token of `ovirt-tcp-broker token add`."""

    # It stays on this machine, unless it has a certificate.
    address: str = "127.0.0.1"
    port: int = 18782
    # PEM files of its certificate and key; empty for plain HTTP, which only loopback may have.
    certificate: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        bounds.check_between("port", self.port, 0, bounds.MAX_PORT)
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError as e:
            raise ValueError("address is no IP address") from e
        if not loopback and not self.certificate:
            raise ValueError(
                "an address other than loopback needs a certificate, "
                "or tokens would go in the clear"
            )


@dataclasses.dataclass(frozen=True)
class HistoryOptions:
    """What the broker remembers of what it noticed and did."""

    # Entries, and days, after which the oldest are forgotten.
    entries: int = 100_000
    days: float = 90.0

    def __post_init__(self) -> None:
        if not 1000 <= self.entries <= 10_000_000:
            raise ValueError("entries is not between 1,000 and 10,000,000")
        if not 0 < self.days <= 10_000:
            raise ValueError("days is not between 0 and 10,000")


@dataclasses.dataclass(frozen=True)
class HookOptions:
    """What runs on an engine event."""

    # Directory of the hook files; it and they belong to root or to the broker's user, and nobody
    # else may write them.
    directory: Path = Path("/usr/share/ovirt-tcp/hooks/engine")


@dataclasses.dataclass(frozen=True)
class StateOptions:
    """What the broker remembers."""

    # Directory of its own, mode 0700.
    directory: Path = Path("/var/lib/ovirt-tcp/broker")


@dataclasses.dataclass(frozen=True)
class Settings:
    """All sections."""

    engine: EngineOptions
    verifier: VerifierOptions
    verdicts: VerdictOptions = VerdictOptions()
    startup: StartupOptions = StartupOptions()
    pools: PoolOptions = dataclasses.field(default_factory=PoolOptions)
    intervals: IntervalOptions = IntervalOptions()
    snapshot: SnapshotOptions = SnapshotOptions()
    guard: GuardOptions = GuardOptions()
    api: ApiOptions = ApiOptions()
    history: HistoryOptions = HistoryOptions()
    hooks: HookOptions = HookOptions()
    state: StateOptions = StateOptions()
