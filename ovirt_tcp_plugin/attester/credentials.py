# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an agent shows and believes, renewed without a person.

It shows a client certificate, which it replaces by proving it, or, where the server no longer takes
it, by proving the chip. It believes the authorities that its servers have.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import enrolment, trust
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.trust import TrustedAuthorities
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.messages import json_fields

log = logging.getLogger("attester.credentials")

# Share of the client certificate's life that is left when it is replaced.
RENEW_BELOW = 1 / 3


class Credentials:
    """Certificate and authorities of an enrolled host.

    Args:
        client: shows the certificate.
        certify: gets another certificate for the enrolled chip from a server that is asked without
            one, as `HostTpm.certify_again` does.
        now: the wall clock, UTC.
    """

    def __init__(
        self,
        host_name: str,
        state: AgentState,
        client: VerifierClient,
        trusted: TrustedAuthorities,
        certify: Callable[[], None],
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._host_name = host_name
        self._state = state
        self._client = client
        self._trusted = trusted
        self._certify = certify
        self._now = now

    def is_good(self) -> bool:
        """Return whether there is a certificate that has not ended."""
        return self._state.client_is_good(self._now())

    def renew(self) -> None:
        """Learn the server's authorities, and replace a certificate that ends, or is of an old one.

        Raises:
            Refused, Unavailable, InvalidMessage: as `enrolment.renew` does.
        """
        is_outdated = self._learn_authorities()
        if is_outdated or self._state.client_life_left(self._now()) < RENEW_BELOW:
            enrolment.renew(self._state, self._client, self._host_name)

    def certify_again(self) -> None:
        """Get another certificate by proving the chip.

        Raises:
            Refused, Unavailable, InvalidMessage, NotFound: as `HostTpm.certify_again` does.
        """
        try:
            self._certify()
        except errors.Refused as e:
            if e.code != "token_unknown":
                raise
            reason = "the server does not know this host: enrol it again with a new token"
            raise errors.Refused(e.code, reason) from e
        log.info("certified again server=%s", self._client.current)
        self._client.reconnect()

    def _learn_authorities(self) -> bool:
        """Return whether our certificate is of another authority than the newest."""
        try:
            answer = self._client.post("/v1/authority", {})
        except errors.Refused as e:
            if e.code == "NotFound":  # a server of an earlier release
                return False
            raise
        members = json_fields.members(answer, "authorities")
        bundle = json_fields.text(members, "authorities", trust.MAX_BUNDLE_SIZE)
        newest = trust.newest(bundle)
        if self._trusted.take_over(bundle):
            self._client.trust(self._trusted.file)
        return not self._state.client_is_of(newest)
