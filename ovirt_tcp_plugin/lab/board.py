# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a host of the lab has on its board beside the TPM, and where it is odd."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Optional

from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.messages import eventlog

Alteration = Callable[[Sequence[eventlog.Event]], Sequence[eventlog.Event]]
LogWriter = Callable[[Sequence[eventlog.Event], Sequence[str]], bytes]


@dataclasses.dataclass(frozen=True)
class Board:
    """A board.

    Attributes:
        txt_element: kind of the TXT heap's element that points to the log (`txt_memory`); None for
            what belongs to the TPM's family, 0 for none.
        locked_down: whether the kernel closes /dev/mem, as it does under Secure Boot.
        firmware_log: whether the kernel has the firmware's log.
        hardware_root: what a core root of trust in hardware measures before the TPM starts
            (H-CRTM); empty where there is none.
        alter: what the firmware measures in place of the usual events.
        write_log: how the firmware writes its log.
    """

    txt_element: Optional[int] = None
    locked_down: bool = False
    firmware_log: bool = True
    hardware_root: bytes = b""
    alter: Alteration = tuple
    write_log: LogWriter = launch.log_of
