# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8) for PCR 8: what GRUB executed, by texts that their digests prove.

Most commands differ from host to host and from boot to boot (UUIDs, saved entries), and mean
nothing by themselves. What they lead to is judged: exactly one `linux`, nothing but `echo` and
`initrd` behind it, and the kernel's command line.

Who runs later can extend PCR 8 by more texts, but take none away. So a second `linux` or another
command line is always seen, and a text that cannot be read is as bad as an evil one.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple, Optional, Union

from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.firmware_pcrs import TEXTS_PCR
from ovirt_tcp_plugin.verifier.appraisal.reference_part import Difference, ReferencePart

# The one slot that sets have in PCR 8.
COMMAND_LINE = "kernel_command_line"

_LINUX = frozenset({"linux", "linuxefi"})
_INITRD = frozenset({"initrd", "initrdefi"})
# They start nothing: GRUB's own, and the functions of the scripts that Debian and Fedora make.
# Whatever they read and run is measured by itself. Not here: all that starts something else
# (chainloader, multiboot, linux16, xen_hypervisor, boot), changes tables or memory (acpi, setpci,
# write_byte), or brings another disk (loopback, cryptomount).
_HARMLESS = frozenset(
    {
        *("[", "test", "true", "false", "set", "unset", "export", "setparams", "echo"),
        *("search", "search.file", "search.fs_label", "search.fs_uuid"),
        *("source", ".", "configfile", "normal", "menuentry", "submenu", "blscfg", "insmod"),
        *("load_env", "save_env", "increment", "recordfail", "savedefault", "regexp"),
        *("clear", "sleep", "serial", "terminal", "terminal_input", "terminal_output"),
        *("gfxmode", "load_video", "loadfont", "background_color", "play"),
    }
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_ROOT = re.compile(r"root=UUID=[0-9A-Fa-f-]{4,36}")
# The host's own file system: every host of an image has another one.
_ANY_ROOT = "root=UUID=*"


class Commands(NamedTuple):
    """What the commands lead to.

    Attributes:
        position: of the kernel's command line among the steps of PCR 8.
        digest: of the kernel's command line with the path of the kernel.
        command_line: its words, without the path of the kernel.
        initrds: how many files the `initrd` commands name.
    """

    position: int
    digest: str
    command_line: tuple[str, ...]
    initrds: int


def read(steps: Sequence[Step]) -> Union[Commands, Difference]:
    """Return what the commands of a boot lead to, or what makes them unfit to tell.

    Args:
        steps: of the boot; those of other PCRs are passed over.
    """
    commands = [step for step in steps if step.pcr == TEXTS_PCR]
    reader = _Reader()
    for position, step in enumerate(commands):
        fault = reader.take(position, step.text)
        if fault:
            text = f"PCR {TEXTS_PCR}, event {position + 1}: {fault}"
            return _unknown(text, len(commands), position, step.digest)
    if reader.line is None:
        text = f"PCR {TEXTS_PCR}: no command starts a kernel whose command line was measured"
        return _unknown(text, len(commands), len(commands), "")
    digest = commands[reader.line_position].digest
    return Commands(reader.line_position, digest, reader.line, reader.initrds)


def compare(part: ReferencePart, commands: Commands, host_name: str) -> Optional[Difference]:
    """Return how the kernel's command line differs from those of a set, None if it is good."""
    if part.allows(COMMAND_LINE, commands.digest, host_name):
        return None
    lines = part.texts(COMMAND_LINE, host_name)
    template = template_of(commands.command_line)
    if any(_matches(line.split(" "), commands.command_line) for line in lines):
        return None
    nearest = min(lines, key=lambda line: _distance(line, template), default="")
    finding = FindingCode.COMMAND_LINE_DIFFERS.finding(
        f"PCR {TEXTS_PCR}, event {commands.position + 1}: the kernel's command line is none of "
        f"{part.set_name}: {_change(nearest, template)}",
        expected=nearest,
        seen=template,
    )
    return Difference(1, finding, commands.position)


def template_of(words: Sequence[str]) -> str:
    """Return a command line as sets keep it: the host's own root file system may be any."""
    kept = [_ANY_ROOT if _ROOT.fullmatch(word) else word for word in words]
    return " ".join(kept)


class _Reader:
    """Reads the commands of a boot in their order.

    Attributes:
        line: words of the kernel's command line, None until it was read.
    """

    def __init__(self) -> None:
        self.line: Optional[tuple[str, ...]] = None
        self.line_position = 0
        self.initrds = 0
        self._kernel = ""

    def take(self, position: int, text: str) -> str:
        """Take the next text; return why it is not a good one, empty if it is."""
        if not text:
            return "the log has no text for this digest, so it may be any command"
        verb, _, rest = text.partition(" ")
        if not self._kernel:
            return self._before_kernel(verb, rest, text)
        if verb == self._kernel:
            return self._take_line(position, rest)
        if verb in _INITRD:
            return self._take_initrds(rest)
        if verb == "echo":
            return ""
        return f"after the kernel, GRUB executed {_quoted(text)}"

    def _before_kernel(self, verb: str, rest: str, text: str) -> str:
        if verb in _LINUX:
            self._kernel, _, _ = rest.partition(" ")
            return "" if _is_path(self._kernel) else f"{_quoted(text)} names no file"
        if verb in _HARMLESS or _ASSIGNMENT.fullmatch(text):
            return ""
        return f"GRUB executed {_quoted(text)}, which is no command that is known to be harmless"

    def _take_line(self, position: int, rest: str) -> str:
        if self.line is not None:
            return "the kernel's command line was measured twice"
        self.line = tuple(rest.split(" "))
        self.line_position = position
        return ""

    def _take_initrds(self, rest: str) -> str:
        files = rest.split(" ")
        self.initrds += len(files)
        # Such as newc:NAME:FILE, which puts a file elsewhere.
        if not all(map(_is_path, files)):
            return f"an initrd command names {_quoted(rest)}, which is no list of files"
        return ""


def _is_path(word: str) -> bool:
    return word.startswith(("/", "("))


def _quoted(text: str) -> str:
    """Return the beginning of a text for a sentence."""
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _unknown(text: str, count: int, position: int, digest: str) -> Difference:
    finding = FindingCode.BOOT_COMMAND_UNKNOWN.finding(text, seen=digest)
    return Difference(2 * count + 1, finding, position)


def _matches(line: Sequence[str], words: Sequence[str]) -> bool:
    """Return whether words are those of a line, in its order."""
    if len(line) != len(words):
        return False
    for expected, word in zip(line, words):
        any_root = expected == _ANY_ROOT and _ROOT.fullmatch(word)
        if expected != word and not any_root:
            return False
    return True


def _distance(line: str, template: str) -> int:
    lost = _words_lost(line, template)
    added = _words_lost(template, line)
    return len(lost) + len(added)


def _change(line: str, template: str) -> str:
    """Return which words came and went, as a sentence says it."""
    changes = [f"+{word}" for word in _words_lost(template, line)]
    changes += [f"-{word}" for word in _words_lost(line, template)]
    return " ".join(changes)[:800] if changes else "its words are in another order"


def _words_lost(before: str, after: str) -> Collection[str]:
    lost = collections.Counter(before.split(" "))
    lost.subtract(after.split(" "))
    return list(lost.elements())
