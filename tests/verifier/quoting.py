# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A host of the lab that quotes, and the banks of its TPM."""

from __future__ import annotations

import dataclasses
import functools

from ovirt_tcp_plugin.attester import keys, measure
from ovirt_tcp_plugin.attester.tpm import RS_PW, Tpm
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.messages import evidence, tpm2
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20

REQUIRED = {"sha256": (17, 18)}
NOW = 10_000
HOUR_MS = 3_600_000


class Quoting:
    """A host with its keys ready: what its agent would hold.

    A software TPM serves one connection at a time.
    """

    def __init__(self, host: LabHost, kind: str = "ecc-p256", ek: str = "rsa-2048") -> None:
        self.host = host
        tpm = host.connect()
        with keys.endorsement_key(tpm, [ek]) as endorsed:
            self.certificate, self.ek = endorsed.certificate, endorsed.public
            self.blob = keys.create_ak(tpm, endorsed, kind)
        self.identity = EnrolledTpm20(host.name, self.ek, tpm2.parse_public(self.blob.public))
        tpm.close()

    def report(
        self,
        issued: IssuedNonce,
        selection: tpm2.Selection | None = None,
        ahead_ms: int = 0,
        **changes: object,
    ) -> evidence.Evidence:
        """Return real evidence; `selection` is quoted instead of what was asked for.

        `ahead_ms` is how much later the agent claims that it is.
        """
        challenge = issued.challenge
        if selection is not None:
            challenge = dataclasses.replace(challenge, selection=selection)
        tpm = self.host.connect()
        logs = {"txt": self.host.txt_log_file, "firmware": self.host.firmware_log_file}
        claim = functools.partial(_claim, ahead_ms)
        sources = measure.Sources(self.host.boot_id_file, logs, claim)
        ak = keys.AttestationKey(tpm, self.blob)
        reported = measure.measure(tpm, ak, challenge, sources)
        ak.unload()
        tpm.close()
        return dataclasses.replace(reported, **changes)  # type: ignore[arg-type]


def _claim(ahead_ms: int) -> int:
    return boottime_ms() + ahead_ms


def allocate(host: LabHost, banks: dict[str, bool]) -> None:
    """Switch PCR banks on and off (TPM2_PCR_Allocate, Part 3, 22.5).

    It takes effect at the next reset.
    """
    every = {bank: tuple(range(24)) if on else () for bank, on in banks.items()}
    tpm: Tpm = host.connect()
    tpm.execute("TPM2_PCR_Allocate", 0x12B, [0x4000000C], [RS_PW], tpm2.encode_selection(every))
    tpm.close()
