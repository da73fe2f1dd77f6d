# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Hosts as odd as the world has them, each enrolled and judged by the real verifier.

Software TPM, real boot hook, real agent's code, real HTTPS. Each row is a kind of host with its
right verdict; what is not trusted has a next step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin import config, errors
from ovirt_tcp_plugin.attester import host_tpm, templates
from ovirt_tcp_plugin.attester import run as agent_run
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.settings import AgentSettings
from ovirt_tcp_plugin.attester.tpm import RS_PW, Tpm
from ovirt_tcp_plugin.attester.trust import TrustedAuthorities
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.lab import launch, txt_memory
from ovirt_tcp_plugin.lab.board import Board
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.lab.processes import Processes
from ovirt_tcp_plugin.lab.swtpm import Vendor
from ovirt_tcp_plugin.messages import eventlog, evidence, secure_boot
from ovirt_tcp_plugin.messages.eventlog import Event
from ovirt_tcp_plugin.messages.findings import next_step
from tests.conftest import TpmPool
from tests.lab.real_verifier import RealVerifier

BANKS = ("sha1", "sha256")
Events = Sequence[Event]
# Event types of the TCG PC Client Platform Firmware Profile 1.06.
NONHOST_INFO = 0x11
VARIABLE_DRIVER_CONFIG = 0x80000001
SPDM_FIRMWARE_BLOB = 0x800000E1
SPDM_NV_INDEX = 0x01C40200
SM3_256 = 0x0012
# Handles and NV attributes of TPM 2.0, Part 2, 7.4 and 13.4.
OWNER = 0x40000001
PLATFORM = 0x4000000C
OWNERWRITE = 1 << 1
AUTHWRITE = 1 << 2
OWNERREAD = 1 << 17
AUTHREAD = 1 << 18
NO_DA = 1 << 25
# TCG EK Credential Profile, 2.2.1.4.
P256_CERTIFICATE = 0x01C0000A
SHA3_256 = 0x0027


@dataclasses.dataclass(frozen=True)
class Boot:
    """One boot of a host: what it boots, on which board, and what it lies about."""

    machine: Machine = Machine()
    board: Board = Board()
    tamper: Callable[[launch.Images, Path], launch.Images] | None = None
    measured_launch: bool = True
    write_log: bool = True
    log: Callable[[bytes], bytes] | None = None


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of host.

    Attributes:
        boot: how it boots.
        good: the boot that is known to be good; None: the same.
        code: first finding of an untrusted host, empty for a trusted one.
        whole: whether the reference values are of whole PCRs.
        key: kind of its attestation key.
    """

    name: str
    boot: Boot = Boot()
    good: Boot | None = None
    code: str = ""
    whole: bool = False
    key: str = "ecc-p256"


def before(*events: Event) -> Callable[[Events], Events]:
    """Return an alteration by which the firmware measures these events first."""
    return lambda usual: (*events, *usual)


def with_header_of(*algorithms: tuple[int, int]) -> Callable[[Events, Sequence[str]], bytes]:
    """Return a writer whose header names more algorithms, which no event has."""

    def write(events: Events, banks: Sequence[str]) -> bytes:
        log = eventlog.encode(events, banks)
        spec = log.index(eventlog.SPEC_ID) + len(eventlog.SPEC_ID) + 8
        size_at = 28
        extra = b"".join(struct.pack("<HH", *algorithm) for algorithm in algorithms)
        count = struct.pack("<I", len(banks) + len(algorithms))
        known_end = spec + 4 + 4 * len(banks)
        (size,) = struct.unpack_from("<I", log, size_at)
        head = log[:size_at] + struct.pack("<I", size + len(extra)) + log[size_at + 4 : spec]
        return head + count + log[spec + 4 : known_end] + extra + log[known_end:]

    return write


def without_secure_boot_variable(usual: Events) -> Events:
    """Measure what firmware without Secure Boot does: a variable of no length."""
    events = list(usual)
    for position, event in enumerate(events):
        if event.type == VARIABLE_DRIVER_CONFIG and "SecureBoot".encode("utf-16-le") in event.data:
            data = secure_boot.variable_data(secure_boot.GLOBAL, "SecureBoot", b"")
            events[position] = launch.measured(7, event.type, data, BANKS)
            break
    return events


def sha1_only(usual: Events) -> Events:
    return [event._replace(digests={"sha1": event.digests["sha1"]}) for event in usual]


def no_action(pcr: int, data: bytes) -> Event:
    zeros = {bank: bytes(hashlib.new(bank).digest_size) for bank in BANKS}
    return Event(pcr, eventlog.NO_ACTION, zeros, data)


def bulk(size: int) -> Events:
    """Return events of PCR 1, which nobody judges, of that many bytes."""
    piece = b"\1" * (64 * 1024)
    return [launch.measured(1, NONHOST_INFO, piece, BANKS)] * (size // len(piece))


def machine(**changes: Any) -> Boot:
    return Boot(machine=Machine(**changes))


def board(**changes: Any) -> Boot:
    return Boot(board=Board(**changes))


def writer(*algorithms: tuple[int, int]) -> Boot:
    return board(write_log=with_header_of(*algorithms))


GOOD = Boot()
HARDWARE_ROOT = b"core root of trust in hardware"
HCRTM = launch.measured(0, eventlog.HCRTM, HARDWARE_ROOT, BANKS)

TXT_KINDS = (
    Kind("an ordinary TXT host"),
    Kind("an RSA attestation key", key="rsa-2048"),
    Kind("a log of each bank", board(txt_element=txt_memory.BANK_LOGS)),
    Kind("no TXT log", Boot(write_log=False), GOOD, "log_missing"),
    Kind("a locked down kernel", board(locked_down=True), GOOD, "log_locked_down"),
    Kind("no launch", Boot(measured_launch=False), GOOD, "no_launch"),
    Kind("whole PCRs without a log", Boot(write_log=False), whole=True),
    Kind("whole PCRs under lockdown", board(locked_down=True), whole=True),
    Kind(
        "another kernel by whole PCRs",
        Boot(tamper=launch.tamper_kernel, write_log=False),
        GOOD,
        "pcr_differs",
        whole=True,
    ),
    Kind("another tboot", Boot(tamper=launch.tamper_tboot), GOOD, "mle_differs"),
    Kind("another kernel", Boot(tamper=launch.tamper_kernel), GOOD, "kernel_differs"),
    Kind("a TXT log cut short", Boot(log=launch.truncate), GOOD, "log_malformed"),
    Kind(
        "the log of another launch",
        Boot(tamper=launch.tamper_kernel, log=lambda good: good),
        GOOD,
        "log_differs",
    ),
)

TPM12_KINDS = (
    Kind("an ordinary TPM 1.2"),
    Kind("a TPM 1.2 without TXT log", Boot(write_log=False), GOOD, "log_missing"),
    Kind("a TPM 1.2 under lockdown", board(locked_down=True), GOOD, "log_locked_down"),
    Kind("a TPM 1.2 with whole PCRs", Boot(write_log=False), whole=True),
    Kind(
        "a TPM 1.2 with another kernel", Boot(tamper=launch.tamper_kernel), GOOD, "kernel_differs"
    ),
    Kind("a TPM 1.2 without launch", Boot(measured_launch=False), GOOD, "no_launch"),
)

UEFI_KINDS = (
    Kind("an ordinary UEFI host"),
    Kind("SM3 in the header", writer((SM3_256, 32))),
    Kind("SHA-3 in the header", writer((SHA3_256, 32), (0x0028, 48), (0x0029, 64))),
    Kind("an algorithm of nobody in the header", writer((0x7777, 5))),
    Kind("H-CRTM", board(hardware_root=HARDWARE_ROOT, alter=before(HCRTM))),
    Kind("startup at locality 3", machine(startup_locality=3)),
    Kind(
        "an SPDM device", board(alter=before(launch.measured(2, SPDM_FIRMWARE_BLOB, b"f", BANKS)))
    ),
    Kind("an SPDM event of an NV index", board(alter=before(no_action(SPDM_NV_INDEX, b"spdm")))),
    Kind(
        "a non-host platform", board(alter=before(launch.measured(0, NONHOST_INFO, b"bmc", BANKS)))
    ),
    Kind("a log of 2 MiB", board(alter=before(*bulk(2 * 1024 * 1024)))),
    Kind(
        "a log that is too long",
        board(alter=before(*bulk(evidence.MAX_LOG_SIZE + 1024 * 1024))),
        GOOD,
        "log_oversized",
    ),
    Kind("firmware of SHA-1 only", board(alter=sha1_only), GOOD, "bank_not_extended"),
    Kind("Secure Boot off", machine(secure_boot=False), GOOD, "secure_boot_off"),
    Kind("no Secure Boot", board(alter=without_secure_boot_variable), GOOD, "secure_boot_off"),
    Kind("no EFI stub", board(firmware_log=False), GOOD, "firmware_log_missing"),
    # Without Secure Boot's word, whole PCRs cover no kernel.
    Kind(
        "no EFI stub, by whole PCRs",
        board(firmware_log=False),
        code="firmware_log_missing",
        whole=True,
    ),
    Kind("a unified kernel image", machine(unified=True)),
    Kind("another boot loader", machine(boot_loader=b"evil"), GOOD, "boot_loader_differs"),
    Kind("updated firmware", machine(version="2"), GOOD, "firmware_version_differs"),
    Kind("an updated dbx", machine(revoked=("shim 15.4", "more")), GOOD, "dbx_differs"),
    Kind("another kernel by UEFI", Boot(tamper=launch.tamper_kernel), GOOD, "kernel_differs"),
    Kind("no TXT, which nobody asked for", Boot(measured_launch=False, write_log=False)),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


@pytest.fixture(scope="module")
def txt_server(directory: Path, tpm_pool: TpmPool) -> Iterator[RealVerifier]:
    tpm_pool.state12(0)
    yield from serve(directory / "txt", tpm_pool, profile="txt", tpm12=True)


@pytest.fixture(scope="module")
def uefi_server(directory: Path, tpm_pool: TpmPool) -> Iterator[RealVerifier]:
    yield from serve(directory / "uefi", tpm_pool, profile="uefi")


def serve(place: Path, tpm_pool: TpmPool, **appraisal: Any) -> Iterator[RealVerifier]:
    place.mkdir()
    with Processes(place) as processes:
        yield RealVerifier(place, processes, tpm_pool.authorities, **appraisal)


@pytest.fixture(scope="module")
def host(directory: Path, tpm_pool: TpmPool) -> Iterator[LabHost]:
    state = tpm_pool.state(0)
    with LabHost("odd.example.com", directory / "host", state, tpm_pool.images) as host:
        yield host


@pytest.fixture(scope="module")
def host12(directory: Path, tpm_pool: TpmPool) -> Iterator[LabHost]:
    state = tpm_pool.state12(0)
    with LabHost("odd12.example.com", directory / "host12", state, tpm_pool.images) as host:
        yield host


def boot(host: LabHost, how: Boot, directory: Path) -> None:
    host.board = how.board
    host.boot(
        how.tamper(host.images, directory) if how.tamper else None,
        machine=how.machine,
        measured_launch=how.measured_launch,
        forged_log=how.log(host.good_log()) if how.log else None,
        write_log=how.write_log,
    )


@contextlib.contextmanager
def reporting(host: LabHost) -> Iterator[None]:
    """Run the agent, in this process: it starts sooner than one of its own."""
    settings = config.load(AgentSettings, "agent", host.config_directory)
    state = AgentState(host.state_directory)
    trusted = TrustedAuthorities(state, settings.verifier.ca_file)
    client = VerifierClient(settings.verifier.urls, trusted.file, state.client_file)
    with host_tpm.connect(settings.tpm) as tpm:
        ak = tpm.load_quoting_key(state)
        agent = agent_run._wire(settings, state, client, trusted, tpm, ak)
        thread = threading.Thread(target=agent.run)
        thread.start()
        try:
            yield
        finally:
            agent.stop()
            thread.join()
            ak.unload()
            client.close()


def learn(kind: Kind, host: LabHost, server: RealVerifier) -> None:
    """Have what a host booted be good."""
    if not kind.whole:
        server.import_from(host)
        return
    server.result(host)
    proven = server.boot_of(host)
    server.add_whole_pcrs(proven["values"], proven["bank"], "golden")


def judge(kind: Kind, host: LabHost, server: RealVerifier, directory: Path) -> None:
    """Enrol a host, learn its good boot, and judge the other one."""
    host._ak_kind = kind.key
    boot(host, kind.good or kind.boot, directory)
    server.enrol(host)
    with reporting(host):
        learn(kind, host, server)
    try:
        boot(host, kind.boot, directory)
        with reporting(host):
            server.result(host)
        listed = server.listed(host)
        status = host.status()
    finally:
        server.withdraw()
    codes = [finding["code"] for finding in listed["findings"]]
    assert (listed["level"], codes[:1]) == (
        ("untrusted", [kind.code]) if kind.code else ("trusted", [])
    ), listed["findings"]
    assert status["level"] == listed["level"]
    assert all(next_step(code) for code in codes)


def by_name(kind: Kind) -> str:
    return kind.name


@pytest.mark.parametrize("kind", TXT_KINDS, ids=by_name)
def test_each_kind_of_txt_host_has_its_right_verdict(
    kind: Kind, host: LabHost, txt_server: RealVerifier, tmp_path: Path
) -> None:
    judge(kind, host, txt_server, tmp_path)


@pytest.mark.parametrize("kind", TPM12_KINDS, ids=by_name)
def test_each_kind_of_host_with_a_tpm_12_has_its_right_verdict(
    kind: Kind, host12: LabHost, txt_server: RealVerifier, tmp_path: Path
) -> None:
    judge(kind, host12, txt_server, tmp_path)


@pytest.mark.parametrize("kind", UEFI_KINDS, ids=by_name)
def test_each_kind_of_uefi_host_has_its_right_verdict(
    kind: Kind, host: LabHost, uefi_server: RealVerifier, tmp_path: Path
) -> None:
    judge(kind, host, uefi_server, tmp_path)


def without_persistent_ek(tpm: Tpm) -> None:
    for kind in templates.ENDORSEMENT_KINDS.values():
        handle = kind.persistent
        if handle in tpm.handles(0x81000000):
            place = handle.to_bytes(4, "big")
            tpm.execute("TPM2_EvictControl", 0x120, [OWNER, handle], [RS_PW], place)


def define_index(tpm: Tpm, content: bytes = b"") -> None:
    """Define the NV index of another kind of EK's certificate, and write it if there is content."""
    attributes = OWNERWRITE | AUTHWRITE | OWNERREAD | AUTHREAD | NO_DA
    public = struct.pack(">IHIHH", P256_CERTIFICATE, 0x000B, attributes, 0, 64)
    parameters = struct.pack(">HH", 0, len(public)) + public
    tpm.execute("TPM2_NV_DefineSpace", 0x12A, [OWNER], [RS_PW], parameters)
    if content:
        written = struct.pack(">H", len(content)) + content + struct.pack(">H", 0)
        tpm.execute("TPM2_NV_Write", 0x137, [OWNER, P256_CERTIFICATE], [RS_PW], written)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(without_persistent_ek, id="no persistent EK"),
        pytest.param(define_index, id="an index that was never written"),
        pytest.param(lambda tpm: define_index(tpm, b"\xff" * 64), id="a blank index"),
        pytest.param(lambda tpm: define_index(tpm, bytes(64)), id="an index of zeros"),
    ],
)
def test_an_odd_chip_enrols_and_is_trusted(
    prepare: Callable[[Tpm], None], uefi_server: RealVerifier, tpm_pool: TpmPool, tmp_path: Path
) -> None:
    state = tpm_pool.state(1)
    with LabHost("chip.example.com", tmp_path / "host", state, tpm_pool.images) as host:
        tpm = host.connect()
        assert isinstance(tpm, Tpm)
        prepare(tpm)
        tpm.close()
        judge(Kind("an odd chip"), host, uefi_server, tmp_path)


def test_a_cleared_chip_says_how_it_comes_back(
    uefi_server: RealVerifier, tpm_pool: TpmPool, tmp_path: Path
) -> None:
    state = tpm_pool.state(1)
    with LabHost("chip.example.com", tmp_path / "host", state, tpm_pool.images) as host:
        boot(host, GOOD, tmp_path)
        uefi_server.enrol(host)
        tpm = host.connect()
        tpm.execute("TPM2_Clear", 0x126, [PLATFORM], [RS_PW])
        tpm.close()
        with reporting(host):
            while "ovirt-tcp-verifier token enrol HOST" not in host.status().get("error", ""):
                time.sleep(0.05)
        judge(Kind("a chip that was cleared and enrolled again"), host, uefi_server, tmp_path)


def test_a_chip_of_another_maker_is_refused_with_the_next_step(
    uefi_server: RealVerifier, tpm_pool: TpmPool, tmp_path: Path
) -> None:
    Vendor(tmp_path / "stranger").manufacture([tmp_path / "chip"])
    with LabHost(
        "stranger.example.com", tmp_path / "h", tmp_path / "chip", tpm_pool.images
    ) as host:
        boot(host, GOOD, tmp_path)
        with pytest.raises(errors.Refused) as refused:
            uefi_server.enrol(host)
    assert refused.value.code == "ek_untrusted"


def test_a_chip_without_a_certificate_is_refused_with_the_next_step(
    uefi_server: RealVerifier, tpm_pool: TpmPool, tmp_path: Path
) -> None:
    with LabHost("bare.example.com", tmp_path / "host", None, tpm_pool.images) as host:
        boot(host, GOOD, tmp_path)
        with pytest.raises(errors.Refused, match="ovirt-tcp-verifier ek add"):
            uefi_server.enrol(host)


def test_a_chip_with_sha384_only_is_told_to_switch_sha256_on(
    uefi_server: RealVerifier, tpm_pool: TpmPool, tmp_path: Path
) -> None:
    state = tmp_path / "chip"
    tpm_pool.vendor.set_up(state, ["--tpm2", "--pcr-banks", "sha384"])
    with LabHost("sha384.example.com", tmp_path / "host", state, tpm_pool.images) as host:
        host.banks = ("sha384",)
        boot(host, Boot(measured_launch=False), tmp_path)
        uefi_server.enrol(host)
        with reporting(host):
            result = uefi_server.result(host)
    assert result["level"] != "trusted"
    steps = [next_step(finding["code"]) for finding in result["findings"]]
    assert any("switch the TPM's sha256 bank on" in step for step in steps)


def test_there_are_thirty_kinds() -> None:
    assert len({kind.name for kind in (*TXT_KINDS, *TPM12_KINDS, *UEFI_KINDS)}) >= 30
