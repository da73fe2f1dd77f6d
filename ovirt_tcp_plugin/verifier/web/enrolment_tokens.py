# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Tokens that enrol hosts, for whoever installs hosts: a playbook, or host-deploy."""

from __future__ import annotations

from ovirt_tcp_plugin.messages import json_fields
from ovirt_tcp_plugin.tokens import new_secret
from ovirt_tcp_plugin.verifier.enrolment import check_host_name
from ovirt_tcp_plugin.verifier.store import tokens
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.web.access import CallerKind
from ovirt_tcp_plugin.verifier.web.handler import Handler, log

MAX_HOURS = 24 * 30


class EnrolmentTokens(Handler):
    """Host name -> a token that enrols this host, once, within some hours."""

    callers = frozenset({CallerKind.ENROLMENT})

    async def post(self) -> None:
        members = {"host_id": "", "hours": 24, **self.body("enrolment token request")}
        host_name = json_fields.text(members, "host", 255)
        host_id = json_fields.text(members, "host_id", 36)
        hours = json_fields.integer(members, "hours", 1, MAX_HOURS)
        check_host_name(host_name)
        now_s = int(self.context.clock.wall().timestamp())
        token = Token("enrolment", host_name, host_id, end_s=now_s + hours * 3600)
        secret = new_secret()
        await self.context.database.write(lambda c: tokens.add_bounded(c, secret, token))
        log.info("token made host=%s hours=%d", host_name, hours)
        self.answer({"token": secret})
