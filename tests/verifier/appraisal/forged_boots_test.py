# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Forged logs of boots with a hostile initrd, kernel or command line: none is trusted.

The attacker owns the disk and, once the hostile initrd runs, the system: the log says what the
attacker likes, and PCRs are extended by more digests. What cannot be undone is what GRUB and shim
measured, in its order within each PCR.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.messages.eventlog import Event
from tests import soak
from tests.verifier.appraisal.grub_boots import (
    ALTERED_KERNEL,
    EVIL,
    GOOD,
    INITRD,
    KERNEL,
    SET,
    START,
    codes,
    command,
    file,
    started,
    string,
    without_files,
)
from tests.verifier.appraisal.uefi_boots import BANK, COMMAND_LINE, boot, images

EVIL_BOOT = [*START, *started(initrds=[EVIL])]
LABELS = [
    b"/boot/initrd\0",
    b"(hd0,gpt2)/boot/grub/grubenv\0",
    b"(hd0,gpt2)/boot/grub/grub.cfg\0",
    b"grub_cmd: echo\0",
    b"",
]
# IPL, EV_EVENT_TAG, EV_SEPARATOR, EV_EFI_ACTION.
TYPES = [0xD, 0x6, 0x4, 0x80000007]
EVIL_DIGEST = file(EVIL).digests[BANK]
ROUNDS = 10_000


def relabelled(events: Sequence[Event], kind: int, label: bytes) -> list[Event]:
    """Return the events with the evil initrd under another type and name."""
    named = []
    for event in events:
        if event.digests[BANK] == EVIL_DIGEST:
            event = event._replace(type=kind, data=label)
        named.append(event)
    return named


def moved(events: Sequence[Event], distance: int) -> list[Event]:
    """Return the events with the evil initrd earlier in the log: no PCR has it so."""
    positions = [place for place, event in enumerate(events) if event.pcr == 9]
    last = positions[-1]
    earlier = positions[-1 - distance]
    reordered = list(events)
    evil = reordered.pop(last)
    reordered.insert(earlier, evil)
    return reordered


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("kind", TYPES)
def test_an_evil_initrd_is_found_under_each_name_and_type(kind: int, label: bytes) -> None:
    assert codes(relabelled(EVIL_BOOT, kind, label), EVIL_BOOT) == ["initrd_differs"]


@pytest.mark.parametrize("kind", TYPES)
def test_an_evil_initrd_is_found_as_an_event_of_the_kernel_behind_good_files(kind: int) -> None:
    """The good ones are read first; then the evil one is said to be the stub's."""
    tricks = [command("[ -s /boot/vmlinuz ]"), file(KERNEL)]
    tricks += [command("[ -s /boot/initrd ]"), file(INITRD)]

    assert codes(relabelled([*START, *tricks, *started(initrds=[EVIL])], kind, b""))


@pytest.mark.parametrize("distance", range(1, 9))
def test_a_log_in_another_order_does_not_replay(distance: int) -> None:
    assert "steps_unproven" in codes(moved(EVIL_BOOT, distance), EVIL_BOOT)


@pytest.mark.parametrize("kernel", [KERNEL, ALTERED_KERNEL], ids=["good", "altered"])
@pytest.mark.parametrize(
    "lead", [[], [b"cfg"], [b"grubenv"], [b"grub.cfg\0", b"grubenv"], [b".lst"]]
)
def test_an_evil_initrd_is_found_though_good_files_are_extended_behind_it(
    kernel: bytes, lead: list[bytes]
) -> None:
    """The last digests are good ones, and there are as many as in a good boot.

    GRUB's own files are removed to make room for the true kernel and initrd among those that need
    no value.
    """
    start = without_files(START, lead) if lead else START
    for fill in range(4):
        filler = [file(bytes([number])) for number in range(fill)]
        late = [*filler, file(KERNEL), file(INITRD)]

        assert codes([*start, *started(kernel, [EVIL]), *late])


def test_an_evil_initrd_is_found_where_the_files_of_another_host_stand() -> None:
    """Files without a value are allowed there, but not a kernel and its initrd."""
    start = without_files(START)
    spread = [file(name) for name in (b"command.lst", b"fs.lst", b"crypto.lst", b"terminal.lst")]

    forged = [*start, *started(ALTERED_KERNEL, [EVIL]), *spread, file(KERNEL), file(INITRD)]

    assert codes(forged) == ["boot_file_differs"]


@pytest.mark.parametrize(
    "initrds", [[INITRD, EVIL], [EVIL, INITRD], [INITRD, INITRD], []], ids=["+", "-", "2", "0"]
)
def test_other_initrds_than_one_are_found(initrds: list[bytes]) -> None:
    names = " ".join(["/boot/initrd"] * len(initrds))
    events = [*START, *started(initrds=initrds, initrd_command=f"initrd {names}")]

    assert "initrd_differs" in codes(events) or "boot_command_unknown" in codes(events)


def test_a_second_initrd_command_is_found() -> None:
    events = [*START, *started(), command("initrd /boot/evil"), file(EVIL)]

    assert codes(events) == ["initrd_differs"]


def test_a_second_kernel_is_found() -> None:
    assert "boot_command_unknown" in codes([*START, *started(), *started(initrds=[EVIL])])
    assert "boot_command_unknown" in codes([*START, *started(initrds=[EVIL]), *started()])


def test_a_chain_of_loaders_is_found() -> None:
    assert "boot_command_unknown" in codes([*START, command("chainloader /evil"), *started()])


def test_a_kernel_that_shim_measured_and_another_that_grub_read_are_found() -> None:
    """Its file has another digest though its signature is good: nobody chose that file."""
    assert codes([*START, *started(ALTERED_KERNEL)]) == ["kernel_differs"]


def test_an_evil_kernel_is_found_by_its_image_and_by_its_file() -> None:
    assert codes(boot(booted=images(kernel=b"evil"))) == ["kernel_differs", "kernel_differs"]


def test_a_number_of_extended_files_alone_changes_nothing() -> None:
    assert codes([*GOOD, file(b"late")])


class Attacker:
    """Makes boots with something evil in them, and logs that may be the truth or not."""

    def __init__(self, numbers: random.Random) -> None:
        self._numbers = numbers
        self._known = [event for event in GOOD if event.pcr == 9]

    def boot(self) -> list[Event]:
        """Return what GRUB, shim and then the attacker's system measured."""
        kernel = self._numbers.choice([KERNEL, ALTERED_KERNEL])
        line = self._numbers.choice([*[COMMAND_LINE] * 7, f"{COMMAND_LINE} init=/evil"])
        initrds = self._numbers.choice([*[[EVIL]] * 6, [INITRD, EVIL], [EVIL, INITRD]])
        names = " ".join(["/boot/initrd"] * len(initrds))
        really = [
            *self._start(),
            *started(kernel, initrds, line, f"initrd {names}"),
        ]
        return [*really, *self._late()]

    def _start(self) -> list[Event]:
        """Return the events before the kernel: some files are not there, others are read, too."""
        start = []
        for event in START:
            if event.pcr == 9 and self._numbers.random() < 0.4:
                continue
            start.append(event)
            if event.pcr == 8 and self._numbers.random() < 0.05:
                start += [command("[ -s FILE ]"), self._file()]
        return start

    def _late(self) -> list[Event]:
        """Return what the running system extends: most often what ends a good boot."""
        late = [self._file() for _ in range(self._numbers.randrange(6))]
        if self._numbers.random() < 0.8:
            late += [file(KERNEL), file(INITRD)]
        if self._numbers.random() < 0.2:
            late.append(self._text())
        return late

    def _file(self) -> Event:
        digest_of = self._numbers.choice([KERNEL, INITRD, EVIL, b"unknown", b"unknown 2"])
        return self._numbers.choice([file(digest_of), self._numbers.choice(self._known)])

    def _text(self) -> Event:
        return self._numbers.choice(
            [
                command("initrd /boot/initrd"),
                command("echo Loading"),
                command(f"linux /boot/vmlinuz {COMMAND_LINE}"),
                string("kernel_cmdline", f"/boot/vmlinuz {COMMAND_LINE}"),
            ]
        )

    def rewrite(self, really: Sequence[Event]) -> list[Event]:
        """Return a log that replays to the same PCRs, with other names, types and texts."""
        # A false text is found at once; most logs leave them alone.
        rewritten = self._numbers.choice([(9,), (9,), (9,), (8, 9)])
        told = []
        for event in really:
            if event.pcr in rewritten and self._numbers.random() < 0.3:
                other = self._numbers.choice(GOOD)
                event = event._replace(type=self._numbers.choice(TYPES), data=other.data)
            told.append(event)
        return sorted(told, key=self._place_of_pcr())

    def _place_of_pcr(self) -> object:
        """Return a key that keeps the order within each PCR, and mixes the PCRs."""
        places = {pcr: self._numbers.random() for pcr in range(24)}
        return lambda event: places[event.pcr]


@pytest.mark.soak
def test_no_rewritten_log_of_an_evil_boot_is_trusted() -> None:
    """10,000 rewritings that keep the PCRs possible; a tenth of them in `make test`."""
    attacker = Attacker(soak.randomness("forged boots"))

    for number in range(soak.part(ROUNDS, ROUNDS // 10)):
        really = attacker.boot()
        told = attacker.rewrite(really)
        assert codes(told, really), f"round {number} is trusted: {told}"


def test_a_good_boot_and_its_harmless_changes_are_trusted() -> None:
    """Otherwise no forgery would have to be found."""
    assert codes(GOOD) == []
    assert codes([*START, *started()]) == []
    assert launch.log_of(GOOD, [BANK])
    assert {value.pcr for value in SET.values} == {0, 2, 4, 7, 8, 9, 14}
