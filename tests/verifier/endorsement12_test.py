# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which TPMs 1.2 and which identity keys are believed at enrolment."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import keys12
from ovirt_tcp_plugin.attester.tpm12 import WELL_KNOWN
from ovirt_tcp_plugin.lab.swtpm import clone
from ovirt_tcp_plugin.lab.swtpm12 import Swtpm12
from ovirt_tcp_plugin.messages import tpm12
from ovirt_tcp_plugin.verifier import endorsement, endorsement12
from tests.conftest import TpmPool
from tests.verifier.software_tpm12 import LABEL, SoftwareTpm12
from tests.verifier.vendor import CLIENT, NOW, YEAR, Vendor, Vendor12


@pytest.fixture(scope="module")
def vendor() -> Vendor12:
    return Vendor12()


@pytest.fixture(scope="module")
def tpm() -> SoftwareTpm12:
    return SoftwareTpm12()


def check(
    vendor: Vendor, tpm: SoftwareTpm12, certificate: bytes, now: datetime.datetime = NOW
) -> None:
    endorsement12.check_ek_certificate(certificate, tpm.ek, vendor.authorities, now)


def refused(code: str, text: str) -> pytest.RaisesExc[errors.Refused]:
    return pytest.raises(errors.Refused, match=rf"\({code}\).*{text}")


class TestEkCertificate:
    def test_refuses_an_unknown_vendor(self, vendor: Vendor12, tpm: SoftwareTpm12) -> None:
        with refused("ek_untrusted", "none has signed its certificate"):
            check(vendor, tpm, Vendor12("stranger").certify(tpm.ek_key.public_key()))

    def test_refuses_a_stranger_with_the_vendors_name(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        with refused("ek_untrusted", "none has signed its certificate"):
            check(vendor, tpm, Vendor12().certify(tpm.ek_key.public_key()))

    def test_refuses_everybody_when_no_authority_is_known(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        with refused("ek_untrusted", "no EK authority vouches"):
            endorsement12.check_ek_certificate(
                vendor.certify(tpm.ek_key.public_key()), tpm.ek, [], NOW
            )

    def test_refuses_what_one_who_is_no_authority_signed(self, tpm: SoftwareTpm12) -> None:
        """A certified EK could sign for others otherwise."""
        fellow = Vendor12(ca=False)
        with refused("ek_untrusted", "none has signed its certificate"):
            check(fellow, tpm, fellow.certify(tpm.ek_key.public_key()))

    def test_accepts_an_intermediate_whose_root_nobody_put_there(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        between = Vendor12("intermediate", issuer=vendor)
        check(between, tpm, between.certify(tpm.ek_key.public_key()))

    @pytest.mark.parametrize(
        ("now", "code", "text"),
        [
            pytest.param(NOW + 2 * YEAR, "ek_expired", "ended on", id="expired"),
            pytest.param(NOW - 2 * YEAR, "ek_untrusted", "clock right", id="not yet valid"),
        ],
    )
    def test_refuses_outside_its_validity(
        self, vendor: Vendor12, tpm: SoftwareTpm12, now: datetime.datetime, code: str, text: str
    ) -> None:
        with refused(code, text):
            check(vendor, tpm, vendor.certify(tpm.ek_key.public_key()), now)

    def test_refuses_a_certificate_for_another_key(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        with refused("ek_key_differs", "another key"):
            check(vendor, tpm, vendor.certify(SoftwareTpm12(1).ek_key.public_key()))

    def test_refuses_a_certificate_of_another_kind(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        with refused("ek_usage", "not one of an endorsement key"):
            check(vendor, tpm, vendor.certify(tpm.ek_key.public_key(), CLIENT))

    @pytest.mark.parametrize("rubbish", [b"", b"\x30\x03\x02\x01\x01", b"x" * 5000])
    def test_refuses_what_is_no_certificate(
        self, vendor: Vendor12, tpm: SoftwareTpm12, rubbish: bytes
    ) -> None:
        with refused("ek_certificate_malformed", "cannot be read"):
            check(vendor, tpm, rubbish)

    @pytest.mark.parametrize(
        ("good", "bad"),
        [
            pytest.param(b"\x02\x01\x02", b"\x02\x01\x2a", id="version 43"),
            pytest.param(
                b"\xf7\x0d\x01\x01\x07", b"\xf7\x0d\x01\x01\x77", id="unknown kind of key"
            ),
            pytest.param(
                b"\x55\x1d\x13\x01\x01\xff",
                b"\x55\x1d\x77\x01\x01\xff",
                id="unknown critical extension",
            ),
        ],
    )
    def test_refuses_a_certificate_of_an_unknown_form(
        self, vendor: Vendor12, tpm: SoftwareTpm12, good: bytes, bad: bytes
    ) -> None:
        signed = x509.load_der_x509_certificate(
            vendor.certify(tpm.ek_key.public_key())
        ).tbs_certificate_bytes
        assert good in signed
        with refused("ek_certificate_malformed", "cannot be read"):
            check(vendor, tpm, vendor.sign(signed.replace(good, bad, 1)))

    def test_refuses_a_certificate_without_a_usage(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        certificate = x509.load_der_x509_certificate(vendor.certify(tpm.ek_key.public_key()))
        signed = certificate.tbs_certificate_bytes
        without = signed.replace(b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x77", 1)
        with refused("ek_usage", "extended key usage is none"):
            check(vendor, tpm, vendor.sign(without))

    def test_refuses_a_certificate_for_a_key_of_another_kind(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        with refused("ek_key_differs", "another key"):
            check(vendor, tpm, vendor.certify(Vendor().certificate.public_key()))  # type: ignore[arg-type]

    def test_refuses_every_flipped_bit_of_what_is_signed(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        certificate = vendor.certify(tpm.ek_key.public_key())
        signed = x509.load_der_x509_certificate(certificate).tbs_certificate_bytes
        start = certificate.index(signed)
        for position in range(start * 8, (start + len(signed)) * 8, 29):
            flipped = bytearray(certificate)
            flipped[position // 8] ^= 1 << position % 8
            with pytest.raises(errors.Refused):
                check(vendor, tpm, bytes(flipped))

    def test_accepts_what_vendors_of_that_time_issued(
        self, vendor: Vendor12, tpm: SoftwareTpm12
    ) -> None:
        """RSA with SHA-1, and a key that is marked rsaesOaep, which no path checker reads."""
        check(vendor, tpm, vendor.certify(tpm.ek_key.public_key()))

    def test_accepts_a_chain_of_two(self, vendor: Vendor12, tpm: SoftwareTpm12) -> None:
        between = Vendor12("intermediate", issuer=vendor)
        authorities = [*between.authorities, *vendor.authorities]
        endorsement12.check_ek_certificate(
            between.certify(tpm.ek_key.public_key()), tpm.ek, authorities, NOW
        )

    def test_accepts_a_modern_signature(self, tpm: SoftwareTpm12) -> None:
        modern = Vendor(key=rsa.generate_private_key(65537, 2048))
        check(modern, tpm, modern.certify(tpm.ek_key.public_key()))


def test_refuses_an_ek_that_signs() -> None:
    key = tpm12.encode_public_key(tpm12.ES_RSAES_OAEP, tpm12.SS_RSASSA_SHA1, b"\xff" * 256)

    with refused("ek_attributes", "not a decryption key"):
        endorsement12.check_ek(tpm12.parse_public_key(key))


class TestIdentity:
    @pytest.mark.parametrize("usage", [tpm12.USAGE_SIGNING, tpm12.USAGE_STORAGE, 0x0014, 0])
    def test_refuses_another_usage(self, tpm: SoftwareTpm12, usage: int) -> None:
        with refused("ak_unrestricted", "would sign quotes that no TPM made"):
            endorsement12.check_identity(tpm.identity(usage=usage), LABEL, tpm.bind())

    def test_refuses_a_key_that_may_leave_its_tpm(self, tpm: SoftwareTpm12) -> None:
        with refused("ak_attributes", "not fixed in its TPM"):
            endorsement12.check_identity(tpm.identity(flags=tpm12.MIGRATABLE), LABEL, tpm.bind())

    def test_refuses_another_scheme(self, tpm: SoftwareTpm12) -> None:
        with refused("ak_scheme", "must sign by RSASSA"):
            endorsement12.check_identity(tpm.identity(scheme=3), LABEL, tpm.bind())

    def test_refuses_a_key_made_for_something_else(self, tpm: SoftwareTpm12) -> None:
        with refused("ak_binding", "not made for this enrolment"):
            endorsement12.check_identity(tpm.identity(), LABEL, tpm.bind(b"o" * 20))

    def test_refuses_the_binding_of_another_key(self, tpm: SoftwareTpm12) -> None:
        with refused("ak_binding", "not made for this enrolment"):
            endorsement12.check_identity(tpm.identity(), LABEL, SoftwareTpm12(1).bind())

    def test_accepts_an_identity_key_made_for_this(self, tpm: SoftwareTpm12) -> None:
        endorsement12.check_identity(tpm.identity(), LABEL, tpm.bind())


class TestCredential:
    def test_needs_a_seed_of_its_size(self, tpm: SoftwareTpm12) -> None:
        with pytest.raises(ValueError, match="has not 32 bytes"):
            endorsement12.make_credential(tpm.ek, tpm.ak, bytes(32), bytes(31))

    def test_opens_for_no_other_identity_key(self, tpm: SoftwareTpm12) -> None:
        protected = endorsement12.make_credential(
            tpm.ek, SoftwareTpm12(1).ak, bytes(32), os.urandom(32)
        )
        with pytest.raises(ValueError, match="TPM_BAD_PARAMETER"):
            tpm.activate(*protected)

    @pytest.mark.parametrize("size", [0, 16, 31, 32])
    def test_opens_with_ek_and_identity_key(self, tpm: SoftwareTpm12, size: int) -> None:
        secret = os.urandom(size)
        assert (
            tpm.activate(*endorsement12.make_credential(tpm.ek, tpm.ak, secret, os.urandom(32)))
            == secret
        )


def test_a_real_tpm_is_believed_and_opens_its_credential(tpm_pool: TpmPool, tmp_path: Path) -> None:
    clone(tpm_pool.state12(0), tmp_path / "tpm")
    now = datetime.datetime.now(datetime.timezone.utc)
    with Swtpm12(tmp_path / "tpm") as chip:
        tpm = chip.connect()
        ek = tpm12.parse_public_key(tpm.read_endorsement_key(WELL_KNOWN))
        vendors = endorsement.load_authorities(tpm_pool.authorities)
        endorsement12.check_ek_certificate(
            keys12.read_certificate(tpm, WELL_KNOWN), ek, vendors, now
        )
        area, binding = tpm.make_identity(WELL_KNOWN, LABEL)
        key = tpm12.parse_key(tpm12.parse_key(area).public_area)
        endorsement12.check_identity(key, LABEL, binding)
        secret = os.urandom(32)

        protected = endorsement12.make_credential(ek, key.public, secret, os.urandom(32))

        assert keys12.IdentityKey(tpm, area).activate(*protected) == secret
        tpm.close()
