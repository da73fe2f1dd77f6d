# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The TPM of this host, of whatever family: what the agent's commands need of it.

The chip itself tells its family; nobody else asks in order to treat it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Protocol

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import enrolment, keys, keys12, settings
from ovirt_tcp_plugin.attester.agent_state import AK_FILE, IDENTITY_KEY_FILE, AgentState
from ovirt_tcp_plugin.attester.measure import QuotingKey
from ovirt_tcp_plugin.attester.tpm import Tpm
from ovirt_tcp_plugin.attester.tpm12 import Tpm12, is_tpm12
from ovirt_tcp_plugin.attester.transport import Transport
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.messages import enrolment as messages
from ovirt_tcp_plugin.messages import public_keys, tpm2, tpm12


class ShownEndorsement(NamedTuple):
    """The EK that enrolment shows.

    Attributes:
        kind: for people.
        area: TPMT_PUBLIC or TPM_PUBKEY.
        certificate: DER, empty if there is none.
    """

    kind: str
    key: public_keys.TpmKey
    area: bytes
    certificate: bytes


class HostTpm(Protocol):
    """The TPM of this host."""

    @property
    def bank(self) -> str:
        """The PCR bank to look at if nobody says another."""

    def read_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        """Return the values of the selected PCRs. Raises Unavailable."""

    def enrol(self, state: AgentState, client: VerifierClient, host_name: str, token: str) -> None:
        """Bind this TPM to `host_name`. Raises as `enrolment.enrol` does."""

    def certify_again(self, state: AgentState, client: VerifierClient, host_name: str) -> None:
        """Get another client certificate for the enrolled keys. Raises as `enrol` does."""

    def load_quoting_key(self, state: AgentState) -> QuotingKey:
        """Return the key that quotes, as enrolment left it in `state`.

        Raises NotFound: the host is not enrolled.
        """

    def endorsement(self) -> ShownEndorsement:
        """Return the EK. Raises Unavailable or InvalidMessage."""


@dataclasses.dataclass(frozen=True)
class HostTpm20:
    """A TPM 2.0."""

    tpm: Tpm
    options: settings.TpmOptions
    bank: ClassVar[str] = "sha256"

    def read_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        """As in `HostTpm`."""
        return self.tpm.read_pcrs(selection)

    def enrol(self, state: AgentState, client: VerifierClient, host_name: str, token: str) -> None:
        """As in `HostTpm`."""
        enrolment.enrol(self.tpm, state, client, host_name, token, self.options.key)

    def certify_again(self, state: AgentState, client: VerifierClient, host_name: str) -> None:
        """As in `HostTpm`."""
        blob = state.load_ak()
        if blob is None:
            raise _not_enrolled(AK_FILE)
        with keys.endorsement_key(self.tpm) as endorsement:
            request = messages.EnrolmentRequest(
                "", host_name, endorsement.certificate, endorsement.area, blob.public
            )
            ak = keys.AttestationKey(self.tpm, blob, endorsement)
            enrolment.certify_again(ak, state, client, request)

    def load_quoting_key(self, state: AgentState) -> QuotingKey:
        """As in `HostTpm`."""
        blob = state.load_ak()
        if blob is None:
            raise _not_enrolled(AK_FILE)
        return keys.AttestationKey(self.tpm, blob)

    def endorsement(self) -> ShownEndorsement:
        """As in `HostTpm`."""
        with keys.endorsement_key(self.tpm) as endorsement:
            return ShownEndorsement(
                endorsement.kind, endorsement.public, endorsement.area, endorsement.certificate
            )


@dataclasses.dataclass(frozen=True)
class HostTpm12:
    """A TPM 1.2."""

    tpm: Tpm12
    options: settings.TpmOptions
    bank: ClassVar[str] = tpm12.BANK

    def read_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        """As in `HostTpm`."""
        return self.tpm.read_pcrs(selection)

    def enrol(self, state: AgentState, client: VerifierClient, host_name: str, token: str) -> None:
        """As in `HostTpm`."""
        enrolment.enrol12(self.tpm, self._owner(), state, client, host_name, token)

    def certify_again(self, state: AgentState, client: VerifierClient, host_name: str) -> None:
        """As in `HostTpm`."""
        area = state.load_identity_key()
        if area is None:
            raise _not_enrolled(IDENTITY_KEY_FILE)
        owner = self._owner()
        request = messages.EnrolmentRequest(
            "",
            host_name,
            ek_certificate=keys12.read_certificate(self.tpm, owner),
            ek_public=self.tpm.read_endorsement_key(owner),
            ak_public=tpm12.parse_key(area).public_area,
            family="1.2",
        )
        ak = keys12.IdentityKey(self.tpm, area, owner)
        enrolment.certify_again(ak, state, client, request)

    def load_quoting_key(self, state: AgentState) -> QuotingKey:
        """As in `HostTpm`."""
        area = state.load_identity_key()
        if area is None:
            raise _not_enrolled(IDENTITY_KEY_FILE)
        return keys12.IdentityKey(self.tpm, area)

    def endorsement(self) -> ShownEndorsement:
        """As in `HostTpm`."""
        owner = self._owner()
        area = self.tpm.read_endorsement_key(owner)
        key = tpm12.parse_public_key(area)
        return ShownEndorsement("TPM 1.2", key, area, keys12.read_certificate(self.tpm, owner))

    def _owner(self) -> bytes:
        return enrolment.read_owner_secret(self.options.owner_secret)


@contextlib.contextmanager
def connect(options: settings.TpmOptions) -> Iterator[HostTpm]:
    """Give the TPM of this host for the block. Raises Unavailable when it does not answer."""
    transport = Transport(options.device, options.timeout)
    try:
        if is_tpm12(transport):
            yield HostTpm12(Tpm12(transport), options)
        else:
            yield HostTpm20(Tpm(transport), options)
    finally:
        transport.close()


def _not_enrolled(file: str) -> errors.NotFound:
    return errors.NotFound("attestation key", f"({file}): run `ovirt-tcp-agent enrol` first")
