# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reference values from a golden boot, in the form in which check (8) compares each PCR.

Most PCRs are kept step by step. Of GRUB's commands the kernel's command line is kept, as a
template; of its files the kernel and its initrds by their places, and all others together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Optional

from ovirt_tcp_plugin.messages import reference_values
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.firmware_pcrs import FILES_PCR, SECTIONS_PCR, TEXTS_PCR
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet, Value
from ovirt_tcp_plugin.verifier.appraisal import grub_commands, grub_files
from ovirt_tcp_plugin.verifier.appraisal.grub_commands import Commands
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured

GRUB_PCRS = (TEXTS_PCR, FILES_PCR)


def fault(boot: Measured, required: Collection[int]) -> Optional[str]:
    """Return why a boot does not have what these PCRs are there for, None if it has."""
    if SECTIONS_PCR in required and _is_empty(boot, SECTIONS_PCR):
        return f"PCR {SECTIONS_PCR} is empty: no unified kernel image was booted"
    if TEXTS_PCR not in required:
        return None
    if _is_empty(boot, TEXTS_PCR):
        return EMPTY_TEXTS
    commands = grub_commands.read(boot.steps)
    if not isinstance(commands, Commands):
        return commands.finding.text
    try:
        grub_files.slots_for(_of(boot, FILES_PCR), commands.initrds)
    except ValueError as e:
        return f"PCR {FILES_PCR}: {e}"
    return None


EMPTY_TEXTS = (
    f"PCR {TEXTS_PCR} is empty: no GRUB was booted, "
    "or it was built without measuring its commands (DISABLE_PCR8)"
)


def reference_set(name: str, boot: Measured, staged: bool, note: str) -> ReferenceSet:
    """Return the reference values of a boot that has no `fault`."""
    plain = [step for step in boot.steps if step.pcr not in GRUB_PCRS]
    golden = reference_values.from_boot(name, boot.bank, plain, staged, note, boot.vocabulary)
    slots = list(golden.slots)
    values = [*golden.values, *_empty_values(boot)]
    if any(step.pcr == TEXTS_PCR for step in boot.steps):
        for value in _grub_values(boot):
            slot = (value.pcr, value.component)
            if slot not in slots:
                slots.append(slot)
            values.append(value)
    marked = []
    for value in values:
        marked.append(dataclasses.replace(value, staged=staged, note=note))
    unique = {value.identifier: value for value in marked}
    return dataclasses.replace(golden, slots=tuple(slots), values=tuple(unique.values()))


def _empty_values(boot: Measured) -> Iterator[Value]:
    """Return the values of PCRs that nothing was measured into: that has to stay so."""
    with_steps = {step.pcr for step in boot.steps}
    for pcr, value in boot.values.items():
        if pcr not in with_steps and _is_empty(boot, pcr):
            yield Value(boot.bank, pcr, "", value)


def _grub_values(boot: Measured) -> Iterator[Value]:
    commands = grub_commands.read(boot.steps)
    if not isinstance(commands, Commands):
        return
    line = _of(boot, TEXTS_PCR)[commands.position]
    template = grub_commands.template_of(commands.command_line)
    component = grub_commands.COMMAND_LINE
    yield Value(boot.bank, TEXTS_PCR, component, line.digest, text=template)
    files = _of(boot, FILES_PCR)
    for slot, step in zip(grub_files.slots_for(files, commands.initrds), files):
        yield Value(boot.bank, FILES_PCR, slot, step.digest)


def _of(boot: Measured, pcr: int) -> Sequence[Step]:
    return [step for step in boot.steps if step.pcr == pcr]


def _is_empty(boot: Measured, pcr: int) -> bool:
    """Return whether a PCR still has the value that it starts from."""
    value = boot.values.get(pcr)
    return value is not None and not any(bytes.fromhex(value))
