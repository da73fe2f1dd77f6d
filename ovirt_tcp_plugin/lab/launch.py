# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A measured launch (Intel TXT with tboot) on a software TPM.

It has the same events, extends and localities as a real one. Real here: tboot's image and its hash
by tboot's tool `lcp2_mlehash`, the module hashes, the D-RTM sequence at locality 4, the extends at
3 (SINIT) and 2 (tboot), the log's format. Made up: what CPU, BIOS ACM and SINIT ACM would say of
themselves, which is the same on every host of this lab, as on machines of one model.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.tpm import RS_PW, Tpm
from ovirt_tcp_plugin.attester.tpm12 import Tpm12
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.lab.processes import find_program
from ovirt_tcp_plugin.lab.swtpm import BANKS, Chip
from ovirt_tcp_plugin.messages import eventlog, tpm2

# What the lab itself sends to a TPM, by commands of its family.
AnyTpm = Union[Tpm, Tpm12]

TBOOT = Path("/boot/tboot.gz")
TBOOT_CMDLINE = "logging=serial,memory"
# In tboot's code, which the MLE header declares as measured; the file's first pages are not.
TAMPERED_BYTE = 0x10000
HASH_WITHIN_S = 30

_SINIT_LOCALITY = 3
_TBOOT_LOCALITY = 2
_RH_OWNER = 0x40000001  # TPM_RH_OWNER, Part 2, 7.4
_SU_CLEAR = b"\0\0"  # TPM_SU_CLEAR of TPM 2.0
_ST_CLEAR = b"\0\1"  # TPM_ST_CLEAR of TPM 1.2

# Event types of TXT without a name in eventlog: TXT Software Development Guide, appendix G.
_BIOSAC = 0x40A
_SCRTM = 0x40B
_LCP_CONTROL = 0x40C
_STM = 0x40E
_OSSINIT_CAP = 0x40F
_SINIT_PUBKEY = 0x410
_LCP_DETAILS = 0x412
_LCP_AUTHORITIES = 0x413
_NV_INFO = 0x414


def hash_start_data() -> bytes:
    """Return what the CPU hashes at the start of the launch.

    That is SHA-256 of the SINIT ACM, and EDX of GETSEC[SENTER].
    """
    return hashlib.sha256(b"SINIT ACM of the lab").digest() + struct.pack("<I", 0)


def _described(what: str) -> bytes:
    return hashlib.sha256(what.encode("ascii")).digest()


# What the launch measures that is the same on every host of this lab: (type, data).
_CONTROL = struct.pack("<I", 0)
_CAPABILITIES = struct.pack("<I", 0x2)
_PCR_17_BEFORE_MLE = (
    (eventlog.HASH_START, hash_start_data()),
    (_BIOSAC, _described("BIOS ACM 1")),
    (_SCRTM, _described("CPU S-CRTM status 0")),
    (_LCP_CONTROL, _CONTROL),
    (_LCP_DETAILS, _described("launch control policy: any")),
    (_STM, b""),
    (_OSSINIT_CAP, _CAPABILITIES),
)
_PCR_18_AFTER_PUBKEY = (
    (_SCRTM, _described("CPU S-CRTM status 0")),
    (_OSSINIT_CAP, _CAPABILITIES),
    (_LCP_CONTROL, _CONTROL),
    (_LCP_AUTHORITIES, _described("launch control policy: no authority")),
    (_NV_INFO, _described("NV indices 01C10102 01C10103")),
)


@dataclasses.dataclass(frozen=True)
class Images:
    """What a host boots: files, and the command line of each."""

    tboot: Path
    kernel: Path
    initrd: Path
    tboot_cmdline: str = TBOOT_CMDLINE
    kernel_cmdline: str = "root=/dev/mapper/onn-root ro crashkernel=auto intel_iommu=on"
    initrd_cmdline: str = ""


def make_images(directory: Path, version: str = "5.14.0-503.el9") -> Images:
    """Return the real tboot with a kernel and an initrd made in `directory`.

    They have the same bytes for the same version.

    Raises:
        Unavailable: tboot is not installed.
    """
    if not TBOOT.exists():
        raise errors.Unavailable(str(TBOOT), "it is not installed (Debian: tboot)")
    directory.mkdir(parents=True, exist_ok=True)
    kernel = directory / f"vmlinuz-{version}"
    kernel.write_bytes(_filler(f"kernel {version}"))
    initrd = directory / f"initramfs-{version}.img"
    initrd.write_bytes(_filler(f"initrd {version}"))
    return Images(TBOOT, kernel, initrd)


def tamper_tboot(images: Images, directory: Path) -> Images:
    """Return the images with a tboot in which one bit is flipped."""
    content = bytearray(gzip.decompress(images.tboot.read_bytes()))
    content[TAMPERED_BYTE] ^= 1
    tampered = directory / "tboot-tampered.gz"
    tampered.write_bytes(gzip.compress(bytes(content), 1, mtime=0))
    return dataclasses.replace(images, tboot=tampered)


def tamper_kernel(images: Images, directory: Path) -> Images:
    """Return the images with a kernel in which one bit is flipped."""
    content = bytearray(images.kernel.read_bytes())
    content[len(content) // 2] ^= 1
    tampered = directory / f"{images.kernel.name}-tampered"
    tampered.write_bytes(bytes(content))
    return dataclasses.replace(images, kernel=tampered)


def events(images: Images, banks: Sequence[str] = BANKS) -> tuple[eventlog.Event, ...]:
    """Return the events of a measured launch, in the order of a real one (DA mapping).

    Args:
        banks: those of the TPM; tboot extends only the last one.

    Raises:
        Unavailable: `lcp2_mlehash` is missing or failed.
    """
    bank = banks[-1]
    policy = _hash(_CONTROL + _hash(b"lab policy", bank), bank)
    kernel = module_hash(images.kernel_cmdline, images.kernel, bank)
    initrd = module_hash(images.initrd_cmdline, images.initrd, bank)
    return (
        *_sinit_events(images, banks),
        _module_event(17, policy, bank),
        _module_event(18, policy, bank),
        _module_event(17, kernel, bank),
        _module_event(17, initrd, bank),
    )


def _sinit_events(images: Images, banks: Sequence[str]) -> tuple[eventlog.Event, ...]:
    """Return what CPU and SINIT ACM measure before tboot runs."""
    mle = {bank: _mle_hash(images, bank) for bank in banks}
    pubkey = {bank: _hash(b"SINIT public key", bank) for bank in banks}
    return (
        *_measured_all(17, _PCR_17_BEFORE_MLE, banks),
        eventlog.Event(17, eventlog.MLE_HASH, mle, b""),
        measured(17, _NV_INFO, _described("NV indices 01C10102 01C10103"), banks),
        eventlog.Event(18, _SINIT_PUBKEY, pubkey, b""),
        *_measured_all(18, _PCR_18_AFTER_PUBKEY, banks),
    )


def _measured_all(
    pcr: int, contents: Sequence[tuple[int, bytes]], banks: Sequence[str]
) -> list[eventlog.Event]:
    return [measured(pcr, kind, data, banks) for kind, data in contents]


def _module_event(pcr: int, digest: bytes, bank: str) -> eventlog.Event:
    """Return what tboot logs of a module."""
    return eventlog.Event(pcr, eventlog.TBOOT_MODULE, {bank: digest}, b"")


def measured(pcr: int, kind: int, data: bytes, banks: Sequence[str] = BANKS) -> eventlog.Event:
    """Return an event whose digests are those of its data."""
    digests = {bank: _hash(data, bank) for bank in banks}
    return eventlog.Event(pcr, kind, digests, data)


def log_of(logged: Sequence[eventlog.Event], banks: Sequence[str] = BANKS) -> bytes:
    """Return events as the log that firmware or TXT writes.

    On hosts with a TPM 1.2 it has the older format.
    """
    if tuple(banks) == ("sha1",):
        return eventlog.encode_sha1(logged)
    return eventlog.encode(logged, banks)


def truncate(log: bytes) -> bytes:
    """Return a log that ends within its last event, as after a crash of its writer."""
    return log[:-10]


def power_on(
    chip: Chip, tpm: AnyTpm, firmware: Sequence[eventlog.Event], hardware_root: bytes = b""
) -> None:
    """Reset the TPM and measure the firmware: what happens before any launch.

    Args:
        hardware_root: what a core root of trust in hardware (H-CRTM) hashes before the TPM starts;
            the firmware's event of it extends nothing then.
    """
    chip.control.reset()
    if hardware_root:
        chip.control.measure_launch(hardware_root)
    if isinstance(tpm, Tpm12):
        tpm.execute("TPM_Startup", 0x99, parameters=_ST_CLEAR)
    else:
        # By the CPU's own ACM, if the log says so.
        locality = 0 if hardware_root else eventlog.startup_locality(firmware) or 0
        chip.control.set_locality(locality)
        tpm.execute("TPM2_Startup", 0x144, parameters=_SU_CLEAR)
        chip.control.set_locality(0)
        _run_ahead(tpm)
    for event in firmware:
        if event.type not in (eventlog.NO_ACTION, eventlog.HCRTM):
            extend(tpm, event)


def _run_ahead(tpm: Tpm) -> None:
    """Set the TPM's clock forward by the time that this machine runs.

    A host of the lab takes its boot time from the machine, which did not boot with it; its TPM must
    have counted as much (TPM2_ReadClock, TPM2_ClockSet: Part 3, 29). The shutdown stores it, so
    that not even a power cut undoes it; the TPM goes on with the next command.
    """
    answer = tpm.execute("TPM2_ReadClock", 0x181)
    answer.u64()  # milliseconds since the reset
    clock = answer.u64()
    later = struct.pack(">Q", clock + boottime_ms())
    tpm.execute("TPM2_ClockSet", 0x128, [_RH_OWNER], [RS_PW], later)
    tpm.execute("TPM2_Shutdown", 0x145, parameters=_SU_CLEAR)


def launch(chip: Chip, tpm: AnyTpm, measurements: Sequence[eventlog.Event]) -> None:
    """Do a measured launch of these events; the first one is HASH_START.

    Only locality 4 can reset PCR 17-22 to zero, and only 2 to 4 can extend PCR 17: software that
    runs later cannot repeat it.
    """
    start, *rest = measurements
    try:
        chip.control.measure_launch(start.data)
        for event in rest:
            if event.type == eventlog.TBOOT_MODULE:
                chip.control.set_locality(_TBOOT_LOCALITY)
            else:
                chip.control.set_locality(_SINIT_LOCALITY)
            extend(tpm, event)
    finally:
        chip.control.set_locality(0)


def extend(tpm: AnyTpm, event: eventlog.Event) -> None:
    """Extend the event's PCR by its digests.

    TPM2_PCR_Extend, Part 3, 22.2; TPM_Extend, Part 3, 16.1.

    Raises:
        Unavailable: the TPM refused.
    """
    if isinstance(tpm, Tpm12):
        parameters = struct.pack(">I", event.pcr) + event.digests["sha1"]
        tpm.execute("TPM_Extend", 0x14, parameters=parameters)
        return
    parameters = struct.pack(">I", len(event.digests))
    for bank, digest in event.digests.items():
        parameters += struct.pack(">H", tpm2.HASH_IDS[bank]) + digest
    tpm.execute("TPM2_PCR_Extend", 0x182, [event.pcr], [RS_PW], parameters)


def module_hash(cmdline: str, image: Path, bank: str) -> bytes:
    """Return tboot's hash of a module, as `tb_polgen` makes it.

    It is over the hashes of its command line and of its image.
    """
    cmdline_hash = _hash(cmdline.encode("ascii"), bank)
    image_hash = _hash(image.read_bytes(), bank)
    return _hash(cmdline_hash + image_hash, bank)


def _mle_hash(images: Images, bank: str) -> bytes:
    digest = hashlib.sha256(images.tboot.read_bytes()).hexdigest()
    return _run_mle_hash(digest, images.tboot, images.tboot_cmdline, bank)


@functools.lru_cache(maxsize=64)
def _run_mle_hash(image_digest: str, tboot: Path, cmdline: str, bank: str) -> bytes:
    """Return the hash that `lcp2_mlehash` prints.

    The image's digest is there for the cache, since a file may change.
    """
    command = [find_program("lcp2_mlehash"), "--create", "--alg", bank]
    command += ["--cmdline", cmdline, str(tboot)]
    try:
        process = subprocess.run(command, capture_output=True, timeout=HASH_WITHIN_S, check=True)
        value = bytes.fromhex(process.stdout.decode("ascii"))
    except (OSError, subprocess.SubprocessError, ValueError) as e:
        raise errors.Unavailable("lcp2_mlehash", str(e)) from e
    if len(value) != tpm2.DIGEST_SIZES[bank]:
        raise errors.Unavailable("lcp2_mlehash", f"no {bank} in its output")
    return value


def _hash(content: bytes, bank: str) -> bytes:
    return hashlib.new(bank, content).digest()


def _filler(seed: str) -> bytes:
    """Return 64 KiB that look like a compressed image."""
    blocks = [hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(2048)]
    return b"".join(blocks)
