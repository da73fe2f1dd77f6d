# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The texts that GRUB measures into PCR 8, as far as their digests prove them.

GRUB hashes each command, and the kernel's command line, without the label that the log puts before
it (GRUB `commands/tpm.c`, `grub_tpm_verify_string`). So the label proves nothing, and the text is
proven: it hashes to the digest of its step, or it is somebody's invention and is left out.
"""

from __future__ import annotations

import hashlib
import hmac

from ovirt_tcp_plugin.messages.eventlog import Event
from ovirt_tcp_plugin.messages.firmware_pcrs import TEXTS_PCR

# COMMAND_LINE_SIZE of the kernel on x86 is 2048; the path and the command's own word come on top.
MAX_TEXT = 4096
# Of all texts of a boot together; real ones have 3 KB.
MAX_TEXTS = 128 * 1024

_LABEL_END = b": "
# They measure their whole block of commands; GRUB measures each again when it runs it.
_BLOCKS = ("menuentry ", "submenu ")


class ProvenTexts:
    """Takes the texts of one boot, up to a bound; a text beyond it counts as not proven."""

    def __init__(self, bank: str) -> None:
        self._bank = bank
        self._left = MAX_TEXTS

    def next_of(self, event: Event) -> str:
        """Return the text of an event of PCR 8, empty if its digest does not prove it."""
        if event.pcr != TEXTS_PCR:
            return ""
        text = _proven_text(event, self._bank)
        if len(text) > min(self._left, MAX_TEXT):
            return ""
        self._left -= len(text)
        return text


def _proven_text(event: Event, bank: str) -> str:
    _, _, content = event.data.partition(_LABEL_END)
    content = content[:-1] if content.endswith(b"\0") else content
    digest = hashlib.new(bank, content).digest()
    if not hmac.compare_digest(digest, event.digests[bank]):
        return ""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    if text.startswith(_BLOCKS):
        first_line, _, _ = text.partition("\n")
        return first_line
    return text
