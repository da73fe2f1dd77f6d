# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which TPMs and which AKs are believed at enrolment.

Credentials are opened by a real TPM in real_tpm_test.py.
"""

from __future__ import annotations

import dataclasses
import datetime
import random

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import der, tpm2, vendor_certificate
from ovirt_tcp_plugin.verifier import endorsement, vendor_path
from tests import odd_der
from tests.odd_der import Oddity
from tests.verifier.software_tpm import AK_ATTRIBUTES, EK_ATTRIBUTES, SoftwareTpm, ecc_public
from tests.verifier.vendor import CLIENT, NOW, YEAR, Vendor, Vendor12

SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")
SHA1_WITH_RSA = bytes.fromhex("06092a864886f70d010105")
MD5_WITH_RSA = bytes.fromhex("06092a864886f70d010104")
_COMMON_NAME = bytes.fromhex("0603550403")
_COUNTRY = bytes.fromhex("0603550406")
_UTF8_STRING = 0x0C
VENDOR = Vendor()
TPM = SoftwareTpm()


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

    def test_names_the_missing_authority_and_where_it_is(
        self, vendor: Vendor, tpm: SoftwareTpm
    ) -> None:
        between = Vendor("intermediate", issuer=vendor)
        url = "http://vendor.example.com/intermediate.cer"
        certificate = between.certify(tpm.ek_key.public_key(), issuer_url=url)
        with refused("ek_untrusted", f"'CN=intermediate'.*curl -so issuer.cer '{url}'"):
            endorsement.check_ek_certificate(certificate, tpm.ek, vendor.authorities, NOW)

    @pytest.mark.parametrize(
        "url", ["http://x/'; reboot #", "http://x/$(id)", "file:///etc/passwd"]
    )
    def test_no_command_holds_what_a_host_wrote_for_a_shell(
        self, vendor: Vendor, tpm: SoftwareTpm, url: str
    ) -> None:
        certificate = Vendor("other").certify(tpm.ek_key.public_key(), issuer_url=url)
        with pytest.raises(errors.Refused) as refusal:
            check(vendor, tpm, certificate)
        assert "curl" not in str(refusal.value)

    def test_accepts_an_intermediate_whose_root_nobody_put_there(self, tpm: SoftwareTpm) -> None:
        root = Vendor()
        between = Vendor("intermediate", issuer=root)
        certificate = between.certify(tpm.ek_key.public_key())
        endorsement.check_ek_certificate(certificate, tpm.ek, between.authorities, NOW)

    def test_refuses_a_root_behind_an_intermediate_that_nobody_put_there(
        self, vendor: Vendor, tpm: SoftwareTpm
    ) -> None:
        between = Vendor("intermediate", issuer=vendor)
        with refused("ek_untrusted", "unable to get .*issuer"):
            check(vendor, tpm, between.certify(tpm.ek_key.public_key()))

    @pytest.mark.parametrize("now", [NOW + 2 * YEAR, NOW - 2 * YEAR])
    def test_a_certificate_of_another_time_tells_its_cure(
        self, vendor: Vendor, tpm: SoftwareTpm, now: datetime.datetime
    ) -> None:
        with pytest.raises(errors.Refused, match="ovirt-tcp-verifier ek add|clock right"):
            check(vendor, tpm, vendor.certify(tpm.ek_key.public_key()), now)

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


class TestWeakPaths:
    def test_refuses_a_certificate_signed_with_sha1(self, tpm: SoftwareTpm) -> None:
        old = Vendor12()
        with refused("ek_weak", "signed with sha1"):
            check(old, tpm, old.certify(tpm.ek_key.public_key()))

    def test_refuses_a_certificate_signed_with_md5(self, tpm: SoftwareTpm) -> None:
        vendor = Vendor(key=rsa.generate_private_key(65537, 2048))
        certificate = vendor.certify(tpm.ek_key.public_key())
        md5 = certificate.replace(SHA256_WITH_RSA, MD5_WITH_RSA)
        fields = vendor_certificate.read(md5)
        assert fields.signature_hash == "md5"
        signature = vendor.key.sign(fields.signed, padding.PKCS1v15(), hashes.MD5())  # noqa: S303
        with refused("ek_weak", "signed with md5"):
            check(vendor, tpm, md5.replace(fields.signature, signature))

    def test_refuses_an_authority_with_a_short_key(self, tpm: SoftwareTpm) -> None:
        vendor = Vendor(key=rsa.generate_private_key(65537, 1024))  # noqa: S505
        with refused("ek_weak", "has 1024 bits"):
            check(vendor, tpm, vendor.certify(tpm.ek_key.public_key()))

    def test_accepts_an_anchor_that_its_root_signed_with_sha1(self, tpm: SoftwareTpm) -> None:
        root = Vendor(key=rsa.generate_private_key(65537, 2048))
        between = Vendor("intermediate", rsa.generate_private_key(65537, 2048), issuer=root)
        encoded = Vendor12.sign(root, sha1_signed(between))  # type: ignore[arg-type]
        anchor = crypto.load_certificate(crypto.FILETYPE_ASN1, encoded)
        certificate = between.certify(tpm.ek_key.public_key())
        endorsement.check_ek_certificate(certificate, tpm.ek, [anchor, *root.authorities], NOW)

    @pytest.mark.parametrize("bits", [1024, 2047])
    def test_refuses_a_short_endorsement_key(self, bits: int) -> None:
        key = rsa.generate_private_key(65537, bits).public_key()
        with refused("ek_weak", f"has {bits} bits"):
            vendor_path.check_key(key, "the endorsement key")

    def test_refuses_an_endorsement_key_that_can_be_computed(self) -> None:
        key = rsa.RSAPublicNumbers(65537, roca_prime(1) * roca_prime(2)).public_key()
        assert key.key_size >= 2000
        with refused("ek_weak", "ROCA|bits"):
            vendor_path.check_key(key, "the endorsement key")
        assert vendor_path.is_roca(key.public_numbers().n)

    def test_takes_no_good_key_for_one_that_can_be_computed(self) -> None:
        for _ in range(5):
            key = rsa.generate_private_key(65537, 2048).public_key()
            assert not vendor_path.is_roca(key.public_numbers().n)


def sha1_signed(between: Vendor) -> bytes:
    """Return what is signed of an intermediate, for a signature with SHA-1."""
    return between.certificate.tbs_certificate_bytes.replace(SHA256_WITH_RSA, SHA1_WITH_RSA)


def roca_prime(seed: int) -> int:
    """Return a prime as the faulty library made them: k * M + (65537 ** a mod M)."""
    product = 1
    for number in range(2, 702):
        if all(number % divisor for divisor in range(2, int(number**0.5) + 1)):
            product *= number
    draw = random.Random(seed)
    while True:
        factor = draw.getrandbits(1024 - product.bit_length()) | 1 << (1023 - product.bit_length())
        candidate = factor * product + pow(65537, draw.getrandbits(64), product)
        if candidate.bit_length() == 1024 and is_prime(candidate):
            return candidate


def is_prime(number: int) -> bool:
    """Return whether it is one, as far as Fermat can tell."""
    return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7))


SUBJECTS = st.builds(
    odd_der.name,
    st.sampled_from([0x0C, 0x13, 0x14, 0x1C, 0x1E]),
    st.text("abcXYZ 0123-.", min_size=1, max_size=60),
)
# Below 1.3.6.1.4.1, where everybody may have his own; any value.
UNKNOWN_EXTENSIONS = st.dictionaries(
    st.integers(1, 127).map(lambda number: bytes.fromhex("2b06010401") + bytes([number])),
    st.binary(max_size=60),
    max_size=3,
).map(lambda extensions: tuple(extensions.items()))
FORMS = {
    "false_critical": st.booleans(),
    "false_authority": st.booleans(),
    "long_lengths": st.booleans(),
    "other_true": st.booleans(),
    "reversed_extensions": st.booleans(),
    "critical_usage": st.booleans(),
    "more_usages": st.booleans(),
    "serial": st.none() | st.integers(-(2**160), 2**160),
    "extensions": UNKNOWN_EXTENSIONS,
    "generalized_time": st.booleans(),
}
oddities = st.builds(Oddity, subject=st.none() | SUBJECTS, **FORMS)


class TestOddForms:
    """A genuine certificate is judged by what it says, however it is encoded."""

    @given(oddities)
    def test_any_odd_form_of_a_good_certificate_is_accepted(self, oddity: Oddity) -> None:
        good = VENDOR.certify(TPM.ek_key.public_key())
        endorsement.check_ek_certificate(
            odd_der.issue(good, VENDOR.key, oddity), TPM.ek, VENDOR.authorities, NOW
        )

    @given(oddities)
    def test_no_odd_form_of_a_bad_certificate_is(self, oddity: Oddity) -> None:
        other_key = VENDOR.certify(SoftwareTpm(1).ek_key.public_key())
        with refused("ek_key_differs", "another key"):
            check(VENDOR, TPM, odd_der.issue(other_key, VENDOR.key, oddity))
        good = VENDOR.certify(TPM.ek_key.public_key())
        with refused("ek_untrusted", "no EK authority vouches"):
            check(VENDOR, TPM, odd_der.issue(good, Vendor().key, oddity))

    @given(st.builds(Oddity, **FORMS))
    def test_an_authority_in_any_odd_form_is_a_part_of_the_path(self, oddity: Oddity) -> None:
        good = ODD_ISSUER.certificate.public_bytes(serialization.Encoding.DER)
        odd = odd_der.issue(good, ODD_ROOT.key, dataclasses.replace(oddity, false_authority=False))
        certificate = ODD_ISSUER.certify(TPM.ek_key.public_key())
        path = endorsement.check_ek_certificate(
            certificate, TPM.ek, ODD_ROOT.authorities, NOW, vendor_certificate.split(odd)
        )
        assert len(path) == 3

    def test_a_certificate_without_a_usage_is_refused_for_that(self) -> None:
        certificate = VENDOR.certify(TPM.ek_key.public_key())
        without = certificate.replace(b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x77")
        with refused("ek_usage", "extended key usage is none"):
            check(VENDOR, TPM, odd_der.issue(without, VENDOR.key, Oddity()))

    def test_sets_out_of_order_are_read(self) -> None:
        """As in the names of Nuvoton: one set of several attributes, as they come."""
        attributes = [
            odd_der.encode(der.SEQUENCE, kind + odd_der.encode(_UTF8_STRING, text))
            for kind, text in ((_COMMON_NAME, b"NTC"), (_COUNTRY, b"TW"))
        ]
        for order in (attributes, attributes[::-1]):
            names = odd_der.encode(der.SET, b"".join(order))
            odd = _with_issuer(odd_der.encode(der.SEQUENCE, names))
            fields = vendor_certificate.read(odd)
            assert fields.issuer_text in ("CN=NTC, C=TW", "C=TW, CN=NTC")
            assert fields.key().public_numbers() == TPM.ek_key.public_key().public_numbers()


def _with_issuer(name: bytes) -> bytes:
    """Return an EK certificate with another issuer; its signature is not good any more."""
    certificate = VENDOR.certify(TPM.ek_key.public_key())
    whole = der.read(certificate, "test")
    signed, algorithm, signature = der.children(whole, der.SEQUENCE, "test")
    content = signed.content.replace(vendor_certificate.read(certificate).issuer, name, 1)
    parts = odd_der.encode(der.SEQUENCE, content) + algorithm.encoded + signature.encoded
    return odd_der.encode(der.SEQUENCE, parts)


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


class OnDieChain:
    """A maker's root, and authorities under it that are another for each chip."""

    def __init__(self, length: int = 3) -> None:
        self.root = Vendor("maker", path_length=length)
        self.parts = []
        issuer = self.root
        for number in range(length):
            issuer = Vendor(f"on-die {number}", issuer=issuer, path_length=length - 1 - number)
            self.parts.insert(0, issuer.certificate.public_bytes(serialization.Encoding.DER))
        self.last = issuer

    def check(self, intermediates: list[bytes]) -> tuple[bytes, ...]:
        certificate = self.last.certify(TPM.ek_key.public_key())
        return endorsement.check_ek_certificate(
            certificate, TPM.ek, self.root.authorities, NOW, intermediates
        )


class TestAuthoritiesFromTheChip:
    """They help to build a path, and are never where it ends."""

    def test_refuses_a_chain_under_a_root_that_the_chip_sent_along(self) -> None:
        chain = OnDieChain()
        root = chain.root.certificate.public_bytes(serialization.Encoding.DER)
        certificate = chain.last.certify(TPM.ek_key.public_key())
        with refused("ek_untrusted", "no EK authority vouches"):
            endorsement.check_ek_certificate(
                certificate, TPM.ek, VENDOR.authorities, NOW, [*chain.parts, root]
            )

    def test_refuses_a_chain_with_a_gap_and_names_the_missing_issuer(self) -> None:
        chain = OnDieChain()
        with refused("ek_untrusted", "certificate of 'CN=on-die 0'"):
            chain.check(chain.parts[:-1])

    def test_refuses_a_weak_authority_from_the_chip(self) -> None:
        root = Vendor("maker")
        weak = Vendor("weak", rsa.generate_private_key(65537, 1024), issuer=root)  # noqa: S505
        certificate = weak.certify(TPM.ek_key.public_key())
        sent = [weak.certificate.public_bytes(serialization.Encoding.DER)]
        with refused("ek_weak", "1024 bits"):
            endorsement.check_ek_certificate(certificate, TPM.ek, root.authorities, NOW, sent)

    @pytest.mark.parametrize("rubbish", [[], [b""], [b"\x30\x82\x00\x01x"], [b"odd"] * 5])
    def test_a_path_leads_over_them_whatever_else_was_sent(self, rubbish: list[bytes]) -> None:
        chain = OnDieChain()
        path = chain.check([*rubbish, *reversed(chain.parts)])
        assert list(path[1:-1]) == chain.parts

    @given(st.data())
    def test_any_order_with_anything_between_is_told_apart(self, data: st.DataObject) -> None:
        certificates = [CHAIN.last.certify(TPM.ek_key.public_key()), *CHAIN.parts]
        order = data.draw(st.permutations(certificates))
        filler = st.binary(max_size=40).filter(lambda content: b"\x30" not in content)
        content = data.draw(filler)
        for certificate in order:
            content += certificate + data.draw(filler)
        assert vendor_certificate.split(content) == tuple(order)

    @given(st.integers(0, 2**32), st.integers(0, 255))
    def test_a_spoilt_byte_never_makes_a_path_to_a_stranger(self, place: int, value: int) -> None:
        content = bytearray(b"".join(CHAIN.parts))
        content[place % len(content)] = value
        sent = list(vendor_certificate.split(bytes(content)))
        try:
            path = CHAIN.check(sent)
        except errors.Refused as e:
            assert e.code in ("ek_untrusted", "ek_weak")
        else:
            assert path[1:-1] == tuple(CHAIN.parts)

    def test_no_more_are_taken_than_a_chain_has(self) -> None:
        certificate = VENDOR.certify(TPM.ek_key.public_key())
        split = vendor_certificate.split(certificate * 20)
        assert split == (certificate,) * vendor_certificate.MAX_INTERMEDIATES


CHAIN = OnDieChain()
ODD_ROOT = Vendor("maker", path_length=2)
ODD_ISSUER = Vendor("odd", issuer=ODD_ROOT)
