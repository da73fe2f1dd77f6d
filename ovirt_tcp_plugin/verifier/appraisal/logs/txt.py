# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The log of a measured launch (Intel TXT): it tells of the PCRs that a launch resets."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Optional

from ovirt_tcp_plugin.messages import eventlog
from ovirt_tcp_plugin.verifier.appraisal.logs import passed_over
from ovirt_tcp_plugin.verifier.appraisal.logs.tcg import TcgEvents, TcgLog


class TxtLog(TcgLog):
    """The log that SINIT and tboot write."""

    kind: ClassVar[str] = "txt"

    def tells_of(self, pcr: int) -> bool:
        """As in `MeasurementLog`."""
        return pcr in eventlog.DRTM_PCRS

    def parse(self, untrusted: Optional[bytes], pcrs: Collection[int]) -> TcgEvents:
        """As in `MeasurementLog`. What a launch was, the events of all its PCRs tell together."""
        if untrusted is None:
            return TcgEvents(())
        log = eventlog.read(untrusted, padded=True, pcrs=eventlog.DRTM_PCRS)
        return TcgEvents(log.events, passed_over.notes(self.kind, log.passed_over))
