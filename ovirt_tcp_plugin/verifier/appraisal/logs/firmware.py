# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The log of the firmware: it tells of all PCRs but those of a measured launch."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Optional

from ovirt_tcp_plugin.messages import eventlog
from ovirt_tcp_plugin.verifier.appraisal.logs import passed_over
from ovirt_tcp_plugin.verifier.appraisal.logs.tcg import TcgEvents, TcgLog


class FirmwareLog(TcgLog):
    """The log that UEFI and the boot loader write."""

    kind: ClassVar[str] = "firmware"

    def tells_of(self, pcr: int) -> bool:
        """As in `MeasurementLog`."""
        return pcr not in eventlog.DRTM_PCRS

    def parse(self, untrusted: Optional[bytes], pcrs: Collection[int]) -> TcgEvents:
        """As in `MeasurementLog`."""
        if untrusted is None:
            return TcgEvents(())
        log = eventlog.read(untrusted, pcrs=pcrs)
        return TcgEvents(log.events, passed_over.notes(self.kind, log.passed_over))
