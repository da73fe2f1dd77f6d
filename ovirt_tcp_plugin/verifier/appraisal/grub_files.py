# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8) for PCR 9: the files that GRUB read, by their places.

Digests of files are proven, and so is their order; paths and types in the log are the host's own
words. Who runs later can extend the PCR as well: a hostile initrd can add the digests of a good
kernel and a good initrd behind its own. So it is not enough that the last files are good ones.

What is proven by other PCRs: GRUB ran one `linux`, then `initrd` commands that name n files
(`grub_commands`), and nothing between them reads a file. So in every boot the digest of the kernel
that runs has the digests of its n initrds right behind it. From this follow the rules:

(a) The last files are the kernel and its n initrds, each with a good value, and behind them only
    what the kernel's own stub measures, whose number is known with the set.
(b) The kernel's digest stands nowhere else. So if a good kernel file ran, it is the one of (a), and
    the initrds behind it are the ones that it got.
(c) Files without a value (GRUB's scripts with the host's UUIDs, its environment) stand more than n
    places apart, unless they are the same file. A kernel file can be altered without its signature
    noticing, and so have no value; then its initrds stand within n places behind it, and an initrd
    without a value is seen.

Why less does not do: docs/decisions/0031.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

from ovirt_tcp_plugin.messages import components
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.findings import FindingCode, part_differs
from ovirt_tcp_plugin.messages.firmware_pcrs import FILES_PCR
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.reference_part import Difference, ReferencePart

# The slots that sets have in PCR 9: one for all files but these, which come in this order.
FILE = "boot_file"
KERNEL = "kernel"
INITRD = "initrd"
STUB = "tagged_event"


class _Shape(NamedTuple):
    """How many files of each kind end a boot of a set."""

    initrds: int
    stub_events: int

    @property
    def length(self) -> int:
        return 1 + self.initrds + self.stub_events


def slots_for(steps: Sequence[Step], initrds: int) -> list[str]:
    """Return the slots of the steps of PCR 9 of a good boot, one for each step.

    Which steps are of the kernel's stub, the log of the golden host says.

    Args:
        initrds: how many files its `initrd` commands named.

    Raises:
        ValueError: there are fewer files than that.
    """
    stub = _stub_events(steps)
    tail = [KERNEL, *_numbered(INITRD, initrds), *_numbered(STUB, stub)]
    files = len(steps) - len(tail)
    if files < 0:
        raise ValueError(f"it tells of {len(steps)} files, and of {initrds} initrds")
    return [FILE] * files + tail


def compare(
    part: ReferencePart, steps: Sequence[Step], initrds: int, host_name: str
) -> Optional[Difference]:
    """Return how the files of a boot differ from those of a set, None if they are good.

    Args:
        steps: of PCR 9.
        initrds: how many files the proven `initrd` commands name.
    """
    return _Files(part, steps, host_name).difference(initrds)


class _Files:
    """The files of one boot beside the values of one set."""

    def __init__(self, part: ReferencePart, steps: Sequence[Step], host_name: str) -> None:
        self._part = part
        self._steps = steps
        self._host_name = host_name
        self._shape = _shape(part.slots)
        self._kernel = len(steps) - self._shape.length

    def difference(self, initrds: int) -> Optional[Difference]:
        """Return the first difference."""
        if initrds != self._shape.initrds:
            return self._other_initrds(initrds)
        if self._kernel < 0:
            return self._missing()
        return self._compare_tail() or self._kernel_elsewhere() or self._unknown_files()

    def _compare_tail(self) -> Optional[Difference]:
        """Apply rule (a)."""
        slots = [KERNEL, *_numbered(INITRD, self._shape.initrds)]
        for position, slot in enumerate(slots, self._kernel):
            digest = self._steps[position].digest
            if not self._part.allows(slot, digest, self._host_name):
                return self._differs(position, slot)
        return None

    def _kernel_elsewhere(self) -> Optional[Difference]:
        """Apply rule (b)."""
        for position, step in enumerate(self._steps):
            is_kernel = self._part.allows(KERNEL, step.digest, self._host_name)
            if is_kernel and position != self._kernel:
                text = f"{_place(position)}: a kernel was read that is not the one to start"
                finding = FindingCode.EVENTS_REORDERED.finding(text, seen=step.digest)
                return Difference(1, finding, position)
        return None

    def _unknown_files(self) -> Optional[Difference]:
        """Apply rule (c)."""
        last: Optional[int] = None
        for position, step in enumerate(self._steps):
            if self._part.knows(step.digest, self._host_name):
                continue
            if last is not None and self._are_near(last, position):
                return self._differs(position, FILE)
            last = position
        return None

    def _are_near(self, first: int, second: int) -> bool:
        """Return whether two files without a value could be a kernel and its initrd."""
        is_other = self._steps[first].digest != self._steps[second].digest
        return is_other and second - first <= self._shape.initrds

    def _differs(self, position: int, slot: str) -> Difference:
        digest = self._steps[position].digest
        expected = self._part.expected(slot, self._host_name)
        if slot == FILE:
            text = (
                f"{_place(position)}: two files that GRUB read are none that the reference values "
                f"{self._part.set_name} know, and could be a kernel and its initrd"
            )
            return Difference(1, part_differs(FILE, text, "", digest), position)
        name = _NAMES[components.word_of(slot)]
        text = (
            f"{_place(position)}: the {name} is none that the reference values "
            f"{self._part.set_name} know"
        )
        return Difference(1, part_differs(slot, text, expected, digest), position)

    def _other_initrds(self, initrds: int) -> Difference:
        text = (
            f"PCR {FILES_PCR}: the boot loads {initrds} initrds, "
            f"boots of {self._part.set_name} load {self._shape.initrds}"
        )
        return Difference(1, part_differs(INITRD, text, "", ""), len(self._steps))

    def _missing(self) -> Difference:
        text = f"PCR {FILES_PCR}: GRUB read neither kernel nor initrd after its own files"
        finding: Finding = FindingCode.EVENT_MISSING.finding(text)
        return Difference(self._shape.length, finding, len(self._steps))


_NAMES = {KERNEL: "kernel's file", INITRD: "initrd"}


def _shape(slots: Sequence[str]) -> _Shape:
    words = [components.word_of(slot) for slot in slots]
    return _Shape(words.count(INITRD), words.count(STUB))


def _stub_events(steps: Sequence[Step]) -> int:
    """Return how many of the last steps the log says are tagged events, of the kernel's stub."""
    count = 0
    for step in reversed(steps):
        if components.word_of(step.component) == FILE:
            break
        count += 1
    return count


def _numbered(word: str, count: int) -> list[str]:
    """Return the slots of parts of one kind, named as steps are."""
    return [word if number == 1 else f"{word}_{number}" for number in range(1, count + 1)]


def _place(position: int) -> str:
    return f"PCR {FILES_PCR}, event {position + 1}"
