# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What goes into which PCR while a host boots by UEFI.

Sources: TCG "PC Client Platform Firmware Profile" 1.06, 3.3.4; GRUB's `commands/tpm.c`; systemd's
`systemd-stub(7)`. What a measured launch extends is in `eventlog.DRTM_PCRS`.
"""

from __future__ import annotations

# Boot loaders, kernels and unified kernel images.
IMAGES_PCR = 4
SECURE_BOOT_PCR = 7
# What GRUB executes, and the files that it reads.
TEXTS_PCR = 8
FILES_PCR = 9
# The sections of a unified kernel image, and then systemd's words for the phases of the boot.
SECTIONS_PCR = 11
