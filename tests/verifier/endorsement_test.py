# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which TPMs and which AKs are believed at enrolment.

Credentials are opened by a real TPM in real_tpm_test.py.
"""

from __future__ import annotations

import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import tpm2
from ovirt_tcp_plugin.verifier import endorsement
from tests.verifier.software_tpm import AK_ATTRIBUTES, EK_ATTRIBUTES, SoftwareTpm, ecc_public
from tests.verifier.vendor import CLIENT, NOW, YEAR, Vendor


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture(scope="module")
def tpm() -> SoftwareTpm:
    return SoftwareTpm()


def check(
    vendor: Vendor, tpm: SoftwareTpm, certificate: bytes, now: datetime.datetime = NOW
) -> None:
    endorsement.check_ek_certificate(certificate, tpm.ek, vendor.authorities, now)


def refused(code: str, text: str) -> pytest.RaisesExc[errors.Refused]:
    return pytest.raises(errors.Refused, match=rf"\({code}\).*{text}")


class TestEkCertificate:
    def test_refuses_an_unknown_vendor(self, vendor: Vendor, tpm: SoftwareTpm) -> None:
        with refused("ek_untrusted", "no EK authority vouches"):
            check(vendor, tpm, Vendor("stranger").certify(tpm.ek_key.public_key()))

    def test_refuses_a_stranger_with_the_vendors_name(
        self, vendor: Vendor, tpm: SoftwareTpm
    ) -> None:
        with refused("ek_untrusted", "no EK authority vouches"):
            check(vendor, tpm, Vendor().certify(tpm.ek_key.public_key()))

    def test_refuses_everybody_when_no_authority_is_known(
        self, vendor: Vendor, tpm: SoftwareTpm
    ) -> None:
        certificate = vendor.certify(tpm.ek_key.public_key())
        with refused("ek_untrusted", "no EK authority vouches"):
            endorsement.check_ek_certificate(certificate, tpm.ek, [], NOW)

    @pytest.mark.parametrize(
        ("now", "code"),
        [
            pytest.param(NOW + 2 * YEAR, "ek_expired", id="expired"),
            pytest.param(NOW - 2 * YEAR, "ek_untrusted", id="not yet valid"),
        ],
    )
    def test_refuses_outside_its_validity(
        self, vendor: Vendor, tpm: SoftwareTpm, now: datetime.datetime, code: str
    ) -> None:
        with refused(code, "certificate"):
            check(vendor, tpm, vendor.certify(tpm.ek_key.public_key()), now)

    def test_refuses_a_certificate_for_another_key(self, vendor: Vendor, tpm: SoftwareTpm) -> None:
        with refused("ek_key_differs", "another key"):
            check(vendor, tpm, vendor.certify(SoftwareTpm(1).ek_key.public_key()))

    def test_refuses_a_certificate_of_another_kind(self, vendor: Vendor, tpm: SoftwareTpm) -> None:
        with refused("ek_usage", "not one of an endorsement key"):
            check(vendor, tpm, vendor.certify(tpm.ek_key.public_key(), CLIENT))

    @pytest.mark.parametrize("rubbish", [b"", b"\x30\x03\x02\x01\x01", b"x" * 5000])
    def test_refuses_what_is_no_certificate(
        self, vendor: Vendor, tpm: SoftwareTpm, rubbish: bytes
    ) -> None:
        with refused("ek_certificate_malformed", "cannot be read"):
            check(vendor, tpm, rubbish)

    @pytest.mark.parametrize(
        ("good", "bad"),
        [
            pytest.param(b"\x02\x01\x02", b"\x02\x01\x2a", id="version 43"),
            pytest.param(
                b"\x2a\x86\x48\xce\x3d\x02\x01",
                b"\x2a\x86\x48\xce\x3d\x02\x77",
                id="unknown kind of key",
            ),
        ],
    )
    def test_refuses_a_certificate_of_an_unknown_form(
        self, vendor: Vendor, tpm: SoftwareTpm, good: bytes, bad: bytes
    ) -> None:
        certificate = vendor.certify(tpm.ek_key.public_key())
        with refused("ek_certificate_malformed", "cannot be read"):
            check(vendor, tpm, certificate.replace(good, bad, 1))

    def test_refuses_an_intermediate_whose_root_is_unknown(self, tpm: SoftwareTpm) -> None:
        root = Vendor()
        between = Vendor("intermediate", issuer=root)
        certificate = between.certify(tpm.ek_key.public_key())
        with refused("ek_untrusted", "unable to get .*issuer"):
            endorsement.check_ek_certificate(certificate, tpm.ek, between.authorities, NOW)

    def test_refuses_one_that_no_authority_but_another_key_of_the_vendor_signed(
        self, vendor: Vendor, tpm: SoftwareTpm
    ) -> None:
        leaf = Vendor("no authority", ca=False, issuer=vendor)
        certificate = leaf.certify(tpm.ek_key.public_key())
        with refused("ek_untrusted", "invalid CA certificate"):
            endorsement.check_ek_certificate(
                certificate, tpm.ek, [*vendor.authorities, *leaf.authorities], NOW
            )

    @pytest.mark.parametrize("bits", [2048, 3072])
    def test_accepts_a_chain_of_rsa_through_an_intermediate(
        self, tpm: SoftwareTpm, bits: int
    ) -> None:
        root = Vendor(key=rsa.generate_private_key(65537, bits))
        between = Vendor("intermediate", ec.generate_private_key(ec.SECP384R1()), issuer=root)
        certificate = between.certify(tpm.ek_key.public_key())
        endorsement.check_ek_certificate(
            certificate, tpm.ek, [*root.authorities, *between.authorities], NOW
        )

    def test_accepts_the_vendors_own(self, vendor: Vendor, tpm: SoftwareTpm) -> None:
        check(vendor, tpm, vendor.certify(tpm.ek_key.public_key()))


class TestEk:
    @pytest.mark.parametrize(
        "attributes",
        [
            EK_ATTRIBUTES & ~tpm2.RESTRICTED,
            EK_ATTRIBUTES & ~tpm2.FIXED_TPM,
            EK_ATTRIBUTES | tpm2.SIGN,
        ],
        ids=["unrestricted", "may leave its TPM", "signs"],
    )
    def test_refuses_attributes_of_no_endorsement_key(
        self, tpm: SoftwareTpm, attributes: int
    ) -> None:
        with refused("ek_attributes", "not a restricted decryption key"):
            endorsement.check_ek(ecc_public(tpm.ek_key, attributes, symmetric_bits=128))


class TestAk:
    def test_refuses_an_unrestricted_key(self, tpm: SoftwareTpm) -> None:
        with refused("ak_unrestricted", "would sign quotes that no TPM made"):
            endorsement.check_ak(
                ecc_public(tpm.ak_key, AK_ATTRIBUTES & ~tpm2.RESTRICTED, tpm2.ALG_ECDSA)
            )

    @pytest.mark.parametrize(
        "missing", [tpm2.FIXED_TPM, tpm2.FIXED_PARENT, tpm2.SENSITIVE_DATA_ORIGIN, tpm2.SIGN]
    )
    def test_refuses_a_key_that_may_leave_its_tpm(self, tpm: SoftwareTpm, missing: int) -> None:
        with refused("ak_attributes", "not a signing key fixed in its TPM"):
            endorsement.check_ak(ecc_public(tpm.ak_key, AK_ATTRIBUTES & ~missing, tpm2.ALG_ECDSA))

    def test_refuses_a_storage_key(self, tpm: SoftwareTpm) -> None:
        with refused("ak_attributes", "not a signing key fixed in its TPM"):
            endorsement.check_ak(
                ecc_public(tpm.ak_key, AK_ATTRIBUTES | tpm2.DECRYPT, tpm2.ALG_ECDSA)
            )

    def test_refuses_sha1_signatures(self, tpm: SoftwareTpm) -> None:
        with refused("ak_scheme", "at least SHA-256"):
            endorsement.check_ak(
                ecc_public(tpm.ak_key, AK_ATTRIBUTES, tpm2.ALG_ECDSA, scheme_hash=0x0004)
            )

    def test_refuses_a_scheme_left_open(self, tpm: SoftwareTpm) -> None:
        with refused("ak_scheme", "must sign by"):
            endorsement.check_ak(ecc_public(tpm.ak_key, AK_ATTRIBUTES))

    def test_refuses_a_sha1_name(self, tpm: SoftwareTpm) -> None:
        with refused("ak_attributes", "name hash is sha1"):
            endorsement.check_ak(
                ecc_public(tpm.ak_key, AK_ATTRIBUTES, tpm2.ALG_ECDSA, name_hash=0x0004)
            )

    def test_accepts_a_restricted_signing_key(self, tpm: SoftwareTpm) -> None:
        endorsement.check_ak(tpm.ak)


def test_refuses_authorities_that_cannot_be_read() -> None:
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
    for pem in (b"", b"text", begin + b"AAAA" + end):
        with pytest.raises(errors.InvalidMessage, match="EK authority"):
            endorsement.load_authorities(pem)


def test_a_file_of_too_many_authorities_is_refused_with_the_way_out() -> None:
    block = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(errors.InvalidMessage, match="put them into several files"):
        endorsement.load_authorities(block * (endorsement.MAX_AUTHORITIES + 1))


def test_an_authority_longer_than_any_certificate_is_not_read() -> None:
    block = b"-----BEGIN CERTIFICATE-----\n" + b"A" * endorsement.MAX_PEM_BLOCK_SIZE
    with pytest.raises(errors.InvalidMessage, match="longer than"):
        endorsement.load_authorities(block)
