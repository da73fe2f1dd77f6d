# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The families of TPMs: those of the messages, and asked for in one place."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import os
from pathlib import Path
from typing import Union

import pytest
from cryptography.hazmat.primitives import serialization

import ovirt_tcp_plugin
from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import enrolment
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.revocation import VendorTrust
from ovirt_tcp_plugin.verifier.tpm_family import FAMILIES
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.software_tpm12 import SoftwareTpm12
from tests.verifier.vendor import NOW, Vendor

VERIFIER = Path(ovirt_tcp_plugin.__file__).parent / "verifier"
# Each family's own modules, and what leads to them.
KNOW_FAMILIES = {"quote20.py", "quote12.py", "endorsement.py", "endorsement12.py", "tpm_family.py"}
OF_A_FAMILY = {"EnrolledTpm20", "EnrolledTpm12", "tpm12", "quote12", "quote20", "endorsement12"}


def test_every_family_of_the_messages_is_known() -> None:
    assert set(FAMILIES) == set(enrolment.FAMILIES)
    assert settings.TPM12_FAMILY in FAMILIES


def test_nobody_else_asks_of_what_family_a_tpm_is() -> None:
    asking = {
        path.name
        for path in VERIFIER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and any(alias.name in OF_A_FAMILY for alias in node.names)
    }
    assert asking <= KNOW_FAMILIES


Asking = tuple[Union[SoftwareTpm, SoftwareTpm12], enrolment.EnrolmentRequest]


def request20(tpm: SoftwareTpm) -> enrolment.EnrolmentRequest:
    return enrolment.EnrolmentRequest("token", "host-1", b"", tpm.ek.area, tpm.ak.area)


def request12(tpm: SoftwareTpm12) -> enrolment.EnrolmentRequest:
    ak = tpm.identity().public_area
    binding = tpm.bind(enrolment.identity_label("host-1"))
    return enrolment.EnrolmentRequest("token", "host-1", b"", tpm.ek.area, ak, "1.2", binding)


@pytest.fixture(params=["2.0", "1.2"])
def asking(request: pytest.FixtureRequest) -> Asking:
    """A TPM of each family, and its request to be enrolled."""
    if request.param == "2.0":
        tpm = SoftwareTpm()
        return tpm, request20(tpm)
    tpm12 = SoftwareTpm12()
    return tpm12, request12(tpm12)


def test_a_key_of_the_other_family_is_refused(asking: Asking) -> None:
    _, request = asking
    other = "1.2" if request.family == "2.0" else "2.0"
    with pytest.raises(errors.InvalidMessage):
        FAMILIES[other].candidate(dataclasses.replace(request, family=other))


def test_without_a_certificate_nobody_vouches_for_the_ek(asking: Asking) -> None:
    _, request = asking
    candidate = FAMILIES[request.family].candidate(request)
    with pytest.raises(errors.Refused, match="ek_certificate_malformed"):
        candidate.check_ek_certificate(
            VendorTrust([]), datetime.datetime.now(datetime.timezone.utc)
        )


def test_a_fit_tpm_opens_its_secret_and_is_the_same_when_it_is_loaded(asking: Asking) -> None:
    tpm, request = asking
    family = FAMILIES[request.family]
    candidate = family.candidate(request)
    candidate.check_ek()
    candidate.check_ak()
    secret = os.urandom(enrolment.SECRET_SIZE)
    protected = candidate.protect(secret, os.urandom)
    assert tpm.activate(protected.credential, protected.encrypted_secret) == secret
    loaded = family.load("host-1", candidate.tpm.ek.area, candidate.tpm.ak.area)
    assert loaded == candidate.tpm
    assert (loaded.name, loaded.family) == ("host-1", request.family)


def test_the_authorities_from_the_chip_are_kept_with_its_certificate() -> None:
    root = Vendor("maker", path_length=2)
    on_die = Vendor("on-die", issuer=root)
    tpm = SoftwareTpm()
    certificate = on_die.certify(tpm.ek_key.public_key())
    chain = on_die.certificate.public_bytes(serialization.Encoding.DER)
    request = dataclasses.replace(request20(tpm), ek_certificate=certificate, ek_chain=chain)
    family = FAMILIES["2.0"]
    candidate = family.candidate(request)

    candidate.check_ek_certificate(VendorTrust(root.authorities), NOW)
    again = family.endorsed(candidate.tpm, candidate.kept_certificates)
    again.check_ek_certificate(VendorTrust(root.authorities), NOW)

    alone = family.endorsed(candidate.tpm, certificate)
    with pytest.raises(errors.Refused, match="ek_untrusted"):
        alone.check_ek_certificate(VendorTrust(root.authorities), NOW)
