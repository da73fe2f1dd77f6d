# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The two families of TPMs: how the keys of each are read, endorsed and challenged at enrolment.

Nobody outside asks of what family a TPM is in order to treat it: `TpmFamily` leads to the objects
that know. Pure, as the endorsement checks are; random bytes come from the caller.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import der, enrolment, tpm2, tpm12, vendor_certificate
from ovirt_tcp_plugin.verifier import endorsement, endorsement12, revocation
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import EnrolledTpm
from ovirt_tcp_plugin.verifier.appraisal.quote12 import EnrolledTpm12
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.revocation import VendorTrust


class ProtectedSecret(NamedTuple):
    """A secret that only one TPM can read, in the two parts of `enrolment.CredentialChallenge`."""

    credential: bytes
    encrypted_secret: bytes


class Candidate(Protocol):
    """A TPM that asks to be enrolled; nothing of it is proven yet."""

    @property
    def tpm(self) -> EnrolledTpm:
        """The TPM, as it will be kept."""

    @property
    def kept_certificates(self) -> bytes:
        """What is kept of its EK's certificate, for `TpmFamily.endorsed`."""

    def check_ek(self) -> None:
        """Return if the EK is a key that only decrypts. Raises Refused (ek_attributes)."""

    def check_ek_certificate(self, trust: VendorTrust, now: datetime.datetime) -> None:
        """Return if a vendor's authority vouches for the EK at `now` (UTC).

        Raises Refused (ek_*).
        """

    def check_ak(self) -> None:
        """Return if the AK signs nothing but what its TPM made itself.

        Raises:
            Refused: ak_*.
            InvalidMessage: the AK is not of the TPM's form.
        """

    def protect(self, secret: bytes, draw: Callable[[int], bytes]) -> ProtectedSecret:
        """Return the secret for the TPM that holds both EK and AK.

        Args:
            draw: returns so many random bytes.
        """


class TpmFamily(Protocol):
    """A family of TPMs."""

    def load(self, host_name: str, ek: bytes, ak: bytes) -> EnrolledTpm:
        """Return an enrolled TPM from its keys as they are kept. Raises InvalidMessage."""

    def candidate(self, request: enrolment.EnrolmentRequest) -> Candidate:
        """Return the TPM of a request. Raises InvalidMessage when a key is not of its form."""

    def endorsed(self, tpm: Any, ek_certificate: bytes) -> Candidate:
        """Return an enrolled TPM of this family, to check the certificate of its EK again.

        Args:
            ek_certificate: `kept_certificates` of when it was enrolled.
        """


@dataclasses.dataclass(frozen=True)
class Candidate20:
    """A TPM 2.0 that asks to be enrolled.

    Attributes:
        intermediates: DER of the authorities that it sent along, nobody's anchors.
    """

    tpm: EnrolledTpm20
    ek_certificate: bytes
    intermediates: Sequence[bytes] = ()

    @property
    def kept_certificates(self) -> bytes:
        """As in `Candidate`: the certificate and its authorities, one after the other."""
        return self.ek_certificate + b"".join(self.intermediates)

    def check_ek(self) -> None:
        """As in `Candidate`."""
        endorsement.check_ek(self.tpm.ek)

    def check_ek_certificate(self, trust: VendorTrust, now: datetime.datetime) -> None:
        """As in `Candidate`."""
        path = endorsement.check_ek_certificate(
            self.ek_certificate, self.tpm.ek, trust.authorities, now, self.intermediates
        )
        revocation.check(path, trust.revocations)

    def check_ak(self) -> None:
        """As in `Candidate`."""
        endorsement.check_ak(self.tpm.ak)

    def protect(self, secret: bytes, draw: Callable[[int], bytes]) -> ProtectedSecret:
        """As in `Candidate`: what TPM2_MakeCredential does."""
        seed = draw(tpm2.DIGEST_SIZES[self.tpm.ek.name_hash])
        ak_name = tpm2.name(self.tpm.ak)
        return ProtectedSecret(*endorsement.make_credential(self.tpm.ek, ak_name, secret, seed))


@dataclasses.dataclass(frozen=True)
class Candidate12:
    """A TPM 1.2 that asks to be enrolled.

    Attributes:
        ak_area: TPM_KEY12 without its private part.
        binding: the AK's signature that binds it to the host name.
    """

    tpm: EnrolledTpm12
    ek_certificate: bytes
    ak_area: bytes
    binding: bytes

    @property
    def kept_certificates(self) -> bytes:
        """As in `Candidate`."""
        return self.ek_certificate

    def check_ek(self) -> None:
        """As in `Candidate`."""
        endorsement12.check_ek(self.tpm.ek)

    def check_ek_certificate(self, trust: VendorTrust, now: datetime.datetime) -> None:
        """As in `Candidate`."""
        path = endorsement12.check_ek_certificate(
            self.ek_certificate, self.tpm.ek, trust.authorities, now
        )
        revocation.check(path, trust.revocations)

    def check_ak(self) -> None:
        """As in `Candidate`: the AK must be an identity key, made for this enrolment."""
        label = enrolment.identity_label(self.tpm.name)
        endorsement12.check_identity(tpm12.parse_key(self.ak_area), label, self.binding)

    def protect(self, secret: bytes, draw: Callable[[int], bytes]) -> ProtectedSecret:
        """As in `Candidate`: what TPM_ActivateIdentity opens."""
        seed = draw(endorsement12.SEED_SIZE)
        credential = endorsement12.make_credential(self.tpm.ek, self.tpm.ak, secret, seed)
        return ProtectedSecret(*credential)


class _Family20:
    def endorsed(self, tpm: EnrolledTpm20, ek_certificate: bytes) -> Candidate:
        try:
            certificate, *intermediates = der.elements(ek_certificate, "kept certificates")
        except (errors.InvalidMessage, ValueError):
            return Candidate20(tpm, ek_certificate)
        encoded = [element.encoded for element in intermediates]
        return Candidate20(tpm, certificate.encoded, encoded)

    def load(self, host_name: str, ek: bytes, ak: bytes) -> EnrolledTpm:
        return EnrolledTpm20(host_name, tpm2.parse_public(ek), tpm2.parse_public(ak))

    def candidate(self, request: enrolment.EnrolmentRequest) -> Candidate:
        ek = tpm2.parse_public(request.ek_public)
        ak = tpm2.parse_public(request.ak_public)
        tpm = EnrolledTpm20(request.host_name, ek, ak)
        intermediates = vendor_certificate.split(request.ek_chain)
        return Candidate20(tpm, request.ek_certificate, intermediates)


class _Family12:
    def endorsed(self, tpm: EnrolledTpm12, ek_certificate: bytes) -> Candidate:
        return Candidate12(tpm, ek_certificate, b"", b"")

    def load(self, host_name: str, ek: bytes, ak: bytes) -> EnrolledTpm:
        return EnrolledTpm12(host_name, tpm12.parse_public_key(ek), tpm12.parse_public_key(ak))

    def candidate(self, request: enrolment.EnrolmentRequest) -> Candidate:
        ek = tpm12.parse_public_key(request.ek_public)
        ak = tpm12.parse_key(request.ak_public)
        tpm = EnrolledTpm12(request.host_name, ek, ak.public)
        return Candidate12(tpm, request.ek_certificate, request.ak_public, request.binding)


# By the name that messages and the store give a family.
FAMILIES: Mapping[str, TpmFamily] = {
    EnrolledTpm20.family: _Family20(),
    EnrolledTpm12.family: _Family12(),
}
