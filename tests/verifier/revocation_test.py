# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""TPMs whose maker took their certificate back, and files that are no list."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import enrolment
from ovirt_tcp_plugin.verifier import revocation, vendor_authorities
from ovirt_tcp_plugin.verifier.revocation import Revocations, VendorTrust
from ovirt_tcp_plugin.verifier.tpm_family import FAMILIES, Candidate
from tests.messages import hostile
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.software_tpm12 import SoftwareTpm12
from tests.verifier.vendor import NOW, YEAR, Vendor, Vendor12

ROOT = Vendor("maker", path_length=2)
ISSUER = Vendor("maker's issuer", issuer=ROOT)
TPM = SoftwareTpm()
CERTIFICATE = ISSUER.certify(TPM.ek_key.public_key())
OTHER = ISSUER.certify(SoftwareTpm().ek_key.public_key())
ISSUER_DER = ISSUER.certificate.public_bytes(serialization.Encoding.DER)


def candidate() -> Candidate:
    request = enrolment.EnrolmentRequest("token", "host-1", CERTIFICATE, TPM.ek.area, TPM.ak.area)
    return FAMILIES["2.0"].candidate(request)


def trust(*files: bytes) -> VendorTrust:
    """Return the trust in ROOT and ISSUER, with these files beside them."""
    authorities = [*ROOT.authorities, *ISSUER.authorities]
    with tempfile.TemporaryDirectory() as directory:
        for number, content in enumerate(files):
            (Path(directory) / f"{number}.crl").write_bytes(content)
        revocations = vendor_authorities.read_revocations([Path(directory)], authorities)
    return VendorTrust(authorities, revocations)


def test_refuses_a_certificate_that_its_issuer_revoked() -> None:
    with pytest.raises(errors.Refused, match=r"\(ek_revoked\).* of the TPM .*'CN=maker's issuer'"):
        candidate().check_ek_certificate(trust(ISSUER.revoke([OTHER, CERTIFICATE])), NOW)


def test_refuses_what_a_revoked_authority_certified() -> None:
    with pytest.raises(errors.Refused, match=r"ek_revoked.*of CN=maker's issuer was revoked"):
        candidate().check_ek_certificate(trust(ROOT.revoke([ISSUER_DER])), NOW)


def test_a_list_past_its_next_update_still_revokes_and_is_told() -> None:
    old = trust(ISSUER.revoke([CERTIFICATE], NOW - datetime.timedelta(days=12)))
    with pytest.raises(errors.Refused, match="ek_revoked"):
        candidate().check_ek_certificate(old, NOW)
    (duty,) = revocation.duties(old.revocations, NOW)
    assert "0.crl is out of date since 12 days" in duty.text
    assert duty.next_step.startswith("fetch the newest list")


def test_refuses_a_tpm_12_that_its_maker_revoked() -> None:
    vendor = Vendor12()
    tpm = SoftwareTpm12()
    certificate = vendor.certify(tpm.ek_key.public_key())
    entry = revocation.parse(vendor.revoke([certificate]), "maker.crl")
    request = enrolment.EnrolmentRequest(
        "token", "host-1", certificate, tpm.ek.area, tpm.identity().public_area, "1.2"
    )
    with pytest.raises(errors.Refused, match="ek_revoked"):
        FAMILIES["1.2"].candidate(request).check_ek_certificate(
            VendorTrust(vendor.authorities, Revocations(entry)), NOW
        )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(ISSUER.revoke([OTHER]), id="another certificate"),
        pytest.param(ROOT.revoke([CERTIFICATE]), id="the number of another issuer's"),
        pytest.param(Vendor("maker's issuer").revoke([CERTIFICATE]), id="signed by a stranger"),
        pytest.param(Vendor("stranger").revoke([CERTIFICATE]), id="of a stranger"),
    ],
)
def test_nobody_else_can_revoke_it(content: bytes) -> None:
    candidate().check_ek_certificate(trust(content), NOW)


def test_a_list_that_its_issuer_did_not_sign_is_told() -> None:
    forged = trust(Vendor("maker's issuer").revoke([CERTIFICATE])).revocations
    (duty,) = revocation.duties(forged, NOW)
    assert "it is not signed by its issuer 'CN=maker's issuer'" in duty.text


def test_one_bad_file_hurts_only_itself() -> None:
    both = trust(b"no list", ISSUER.revoke([CERTIFICATE]))
    with pytest.raises(errors.Refused, match="ek_revoked"):
        candidate().check_ek_certificate(both, NOW)
    (duty,) = revocation.duties(both.revocations, NOW)
    assert "0.crl is of no use" in duty.text


def test_lists_may_stand_one_after_the_other_in_pem() -> None:
    pem = b""
    for content in (ROOT.revoke([]), ISSUER.revoke([CERTIFICATE])):
        crl = x509.load_der_x509_crl(content)
        pem += b"of the maker\n" + crl.public_bytes(serialization.Encoding.PEM)
    with pytest.raises(errors.Refused, match="ek_revoked"):
        candidate().check_ek_certificate(trust(pem), NOW)


def test_a_list_of_changes_alone_is_of_no_use() -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(ISSUER.name)
    builder = builder.last_update(NOW).next_update(NOW + YEAR)
    builder = builder.add_extension(x509.DeltaCRLIndicator(7), critical=True)
    changes = builder.sign(ISSUER.key, hashes.SHA256())
    faults = trust(changes.public_bytes(serialization.Encoding.DER)).revocations.faults
    assert "it lists changes only" in next(iter(faults.values()))


def test_no_directory_is_no_list(tmp_path: Path) -> None:
    revocations = vendor_authorities.read_revocations([tmp_path / "absent"], [])
    assert (revocations.lists, revocations.faults) == ((), {})


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400) | hostile.mutations(ISSUER.revoke([OTHER])))
def test_any_file_is_a_list_or_told_and_never_revokes_what_its_issuer_did_not(
    content: bytes,
) -> None:
    read = trust(content)
    candidate().check_ek_certificate(read, NOW)
    assert len(read.revocations.lists) + len(read.revocations.faults) == 1
