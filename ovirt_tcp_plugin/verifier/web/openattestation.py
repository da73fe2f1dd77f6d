# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's questions, in its own words."""

from __future__ import annotations

import datetime

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import oat, result
from ovirt_tcp_plugin.verifier.web.access import Caller
from ovirt_tcp_plugin.verifier.web.handler import Handler


class PollHosts(Handler):
    """OpenAttestation's question (1.0, 1.5-1.7, 2.x)."""

    callers = frozenset({Caller.VIEWER, Caller.OAT_NETWORK})
    max_body_size = oat.MAX_POLL_SIZE

    async def post(self) -> None:
        try:
            poll = oat.decode_poll(self.content)
        except errors.InvalidMessage as e:
            self.answer_error(400, "400", str(e))
            return
        wait_ms = int(self.context.options.poll_deadline * 1000)
        results = await self.context.attestation.results(poll.hosts, poll.time_threshold_ms, wait_ms)
        now = self.context.clock.wall()
        self.answer(oat.encode_answer(_host_trust(one, now) for one in results))

    def answer_error(self, status: int, code: str, reason: str) -> None:
        self.set_status(status)
        self.answer({"error_code": status, "error_message": reason, "detail": code})


def _host_trust(one: result.AttestationResult, now: datetime.datetime) -> oat.HostTrust:
    age = datetime.timedelta(milliseconds=one.age_ms or 0)
    return oat.HostTrust(one.host_name, one.level.value, now - age)
