# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a host of the lab boots by UEFI, beside the kernel and its initrd.

The contents are made up, and the same on every host, as on machines of one model. Only the disk
differs from host to host.
"""

from __future__ import annotations

import dataclasses
import uuid

_ENVIRONMENT = b"# GRUB Environment Block\n"
_ENVIRONMENT_SIZE = 1024

# What stands behind it in an image is its signature, which the image's own hash does not cover.
SIGNATURE_MARK = b"\0signature\0"


def environment(*settings: str) -> bytes:
    """Return GRUB's environment block (grubenv) with these settings, such as "boot_success=1"."""
    lines = "".join(f"{setting}\n" for setting in settings)
    return (_ENVIRONMENT + lines.encode("ascii")).ljust(_ENVIRONMENT_SIZE, b"#")


@dataclasses.dataclass(frozen=True)
class Machine:
    """A host's firmware, boot loaders and disk.

    Attributes:
        version: what the firmware calls itself.
        code: the firmware's volume.
        secure_boot: whether Secure Boot is on.
        revoked: names of the images whose hashes are bad (dbx).
        boot_loader: the image of shim.
        grub: the image of GRUB.
        unified: whether firmware starts a unified kernel image (UKI), without shim and GRUB.
        startup_locality: 3 where the CPU's own ACM starts the TPM (Boot Guard), otherwise 0.
        owner_keys: names of the machine owner's keys (MokList).
        validated: whether shim checks what it starts (False: `mokutil --disable-validation`).
        sbat_level: what shim takes for revoked (SbatLevel).
        environment: GRUB's environment block.
        disk: of the file system with /boot; differs from host to host.
    """

    version: str = "ovirt-tcp lab firmware 1"
    code: bytes = b"firmware volume 1"
    secure_boot: bool = True
    revoked: tuple[str, ...] = ("shim 15.4",)
    boot_loader: bytes = b"shim 15.8"
    grub: bytes = b"grub 2.06"
    unified: bool = False
    startup_locality: int = 0
    owner_keys: tuple[str, ...] = ("distribution",)
    validated: bool = True
    sbat_level: bytes = b"sbat,1,2024010900\nshim,4\ngrub,3\n"
    environment: bytes = environment()
    disk: uuid.UUID = uuid.UUID("0f0f0f0f-1111-2222-3333-444444444444")
