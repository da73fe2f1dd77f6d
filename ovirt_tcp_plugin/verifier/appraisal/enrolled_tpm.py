# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the checks need of a host's TPM, whatever its family."""

from __future__ import annotations

import dataclasses
from typing import Optional, Protocol, Union

from ovirt_tcp_plugin.messages import public_keys, tpm2
from ovirt_tcp_plugin.messages.result import Finding


@dataclasses.dataclass(frozen=True)
class Counters:
    """What a TPM 2.0 counts: TPMS_CLOCK_INFO (Part 2, 10.11.1).

    Attributes:
        reset: TPM resets.
        restart: restarts, resumes and measured launches since the last reset.
        clock: milliseconds of power.
        safe: whether no later `clock` was ever told. False for a while after power was cut: the
            clock then goes on from where it was last stored.
    """

    reset: int
    restart: int
    clock: int
    safe: bool


@dataclasses.dataclass(frozen=True)
class SignedQuote:
    """A quote that the host's AK signed.

    Attributes:
        qualifying_data: what the caller of the TPM put in.
        selection: the PCRs that `pcr_digest` covers.
        pcr_digest: digest over the values of the selected PCRs.
        counters: None from a TPM 1.2, which counts nothing.
    """

    qualifying_data: bytes
    selection: tpm2.Selection
    pcr_digest: bytes
    counters: Optional[Counters]


class EnrolledTpm(Protocol):
    """The TPM that enrolment bound to a host name."""

    @property
    def name(self) -> str:
        """The host's name, lower case."""

    @property
    def family(self) -> str:
        """Family of the TPM, as in messages and in the store: "2.0" or "1.2"."""

    @property
    def bank(self) -> str:
        """The PCR bank that hosts with such a TPM are judged by."""

    @property
    def ek(self) -> public_keys.TpmKey:
        """The endorsement key; it names the chip."""

    @property
    def ak(self) -> public_keys.TpmKey:
        """The key that signs the quotes."""

    def check_quote(
        self, attest: bytes, signature: bytes, reported: tpm2.PcrValues
    ) -> Union[SignedQuote, Finding]:
        """Return the quote in `attest` if the AK made it, else the first failure of (2), (3), (10).

        The signature comes first, over the exact bytes, so that no field is read before it is
        genuine.

        Args:
            reported: where a quote does not name its PCRs, it is taken to be of these; it is if
                their values hash to its digest.
        """

    def signed_part(self, qualifying_data: bytes) -> bytes:
        """Return what of the qualifying data a quote of this TPM holds."""

    def pcr_digest(self, selection: tpm2.Selection, values: tpm2.PcrValues) -> bytes:
        """Return the digest that a quote of these values has.

        Raises:
            InvalidMessage: a selected value is missing, or does not have its bank's size.
        """
