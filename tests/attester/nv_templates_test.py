# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""EKs that are made with a nonce or template of the TPM's own, and whatever else lies there."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Mapping
from typing import Union

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import keys, nv_templates
from ovirt_tcp_plugin.attester.templates import ENDORSEMENT_KINDS, EndorsementKind
from ovirt_tcp_plugin.attester.tpm import RC_AGAIN, Tpm, TpmError
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.messages import public_keys, tpm2
from tests.attester import nv
from tests.verifier.vendor import Vendor

VENDOR = Vendor()
P256 = ENDORSEMENT_KINDS["ecc-p256"]
RSA = ENDORSEMENT_KINDS["rsa-2048"]
NONCE = bytes(range(20))


def certify_made(tpm: Tpm, kind: EndorsementKind, template: bytes) -> bytes:
    """Certify the EK that the TPM makes of a template, as its vendor does; return its area."""
    handle, area = tpm.create_primary(tpm2.RH_ENDORSEMENT, template)
    tpm.flush(handle)
    certificate = VENDOR.certify(public_keys.load(tpm2.parse_public(area)))
    nv.write(tpm, kind.certificate_index, certificate)
    return area


@pytest.fixture
def tpm(make_host: Callable[..., LabHost]) -> Tpm:
    return make_host().connect()


def test_makes_the_ek_with_the_nonce_that_the_tpm_keeps(tpm: Tpm) -> None:
    nv.write(tpm, P256.nonce_index, NONCE)
    certified = certify_made(tpm, P256, nv_templates.with_nonce(P256.template, NONCE))

    with keys.endorsement_key(tpm, ["ecc-p256"]) as endorsement:
        assert endorsement.area == certified
        blob = keys.create_ak(tpm, endorsement, "ecc-p256")
    keys.AttestationKey(tpm, blob).quote(bytes(32), {"sha256": (17,)})
    tpm.close()


def test_makes_the_ek_of_the_template_that_the_tpm_keeps(tpm: Tpm) -> None:
    # Of a key with another attribute than the specification's: noDA.
    head, attributes, rest = P256.template[:4], P256.template[4:8], P256.template[8:]
    (number,) = struct.unpack(">I", attributes)
    template = head + struct.pack(">I", number | tpm2.NO_DA) + rest
    nv.write(tpm, P256.template_index, template + bytes(7))
    certified = certify_made(tpm, P256, template)

    with keys.endorsement_key(tpm, ["ecc-p256"]) as endorsement:
        assert endorsement.area == certified
    tpm.close()


def test_a_nonce_that_the_certified_ek_was_not_made_with_is_passed_over(tpm: Tpm) -> None:
    nv.write(tpm, P256.nonce_index, NONCE)
    certified = certify_made(tpm, P256, P256.template)

    with keys.endorsement_key(tpm, ["ecc-p256"]) as endorsement:
        assert endorsement.area == certified
    tpm.close()


def test_the_persistent_ek_is_used_whatever_it_was_made_of(tpm: Tpm) -> None:
    template = nv_templates.with_nonce(P256.template, b"a nonce that was lost")
    certified = certify_made(tpm, P256, template)
    handle, _ = tpm.create_primary(tpm2.RH_ENDORSEMENT, template)
    persistent = struct.pack(">I", P256.persistent)
    tpm.execute("TPM2_EvictControl", 0x120, [0x40000001, handle], [0x40000009], persistent)
    tpm.flush(handle)

    with keys.endorsement_key(tpm, ["ecc-p256"]) as endorsement:
        assert endorsement.handle == P256.persistent
        assert endorsement.area == certified
    tpm.close()


@pytest.mark.parametrize("name", list(ENDORSEMENT_KINDS))
def test_a_nonce_takes_the_begin_of_the_unique_field(name: str) -> None:
    template = ENDORSEMENT_KINDS[name].template
    size = {"rsa-2048": 256, "ecc-p256": 32, "ecc-p384": 48, "rsa-3072": 384}[name]
    with_nonce = nv_templates.with_nonce(template, NONCE)

    unique = struct.pack(">H", size) + NONCE.ljust(size, b"\0")
    if name.startswith("ecc"):
        unique += struct.pack(">H", size) + bytes(size)
    assert with_nonce.endswith(unique)
    assert template.startswith(with_nonce[: -len(unique)])
    assert nv_templates.with_nonce(template, bytes(size + 1)) == b""


Content = Union[bytes, int]


@dataclasses.dataclass
class OddTpm:
    """A TPM with an EK by the specification's template, and anything in the other NV indices.

    Attributes:
        indices: content, or the code with which a read is refused.
    """

    indices: Mapping[int, Content]

    def read_nv(self, index: int) -> bytes:
        content = self.indices.get(index, 0x18B)
        if isinstance(content, int):
            raise TpmError("TPM2_NV_Read", content)
        return content

    def read_public(self, handle: int) -> bytes:
        content = self.indices.get(handle, 0x18B)
        if isinstance(content, int):
            raise TpmError("TPM2_ReadPublic", content)
        return content

    def create_primary(self, hierarchy: int, template: bytes) -> tuple[int, bytes]:
        if template == P256.template:
            return 1, GENUINE
        if len(template) % 2:
            raise TpmError("TPM2_CreatePrimary", 0x2C4)
        return 2, OTHER

    def flush(self, handle: int) -> None:
        pass


def _area(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    point = [struct.pack(">H", 32) + part.to_bytes(32, "big") for part in (numbers.x, numbers.y)]
    start, _ = nv_templates._unique_of(P256.template)
    return P256.template[:start] + b"".join(point)


GENUINE_KEY = ec.generate_private_key(ec.SECP256R1())
GENUINE = _area(GENUINE_KEY)
OTHER = _area(ec.generate_private_key(ec.SECP256R1()))
CERTIFICATE = VENDOR.certify(GENUINE_KEY.public_key())

CONTENTS = (
    st.binary(max_size=120)
    | st.sampled_from([b"\xff" * 512, b"\0", GENUINE, OTHER, P256.template, RSA.template])
    | st.builds(lambda size: P256.template[:size], st.integers(0, len(P256.template)))
    | st.sampled_from([0x14A, 0x149, 0x148, 0x12F, 0x98E, 0x18B])
)


@given(CONTENTS, CONTENTS, CONTENTS, CONTENTS)
def test_any_state_of_the_other_indices_leaves_the_certified_ek_what_it_is(
    template: Content, nonce: Content, persistent: Content, other_certificate: Content
) -> None:
    tpm = OddTpm(
        {
            P256.certificate_index: CERTIFICATE,
            P256.template_index: template,
            P256.nonce_index: nonce,
            P256.persistent: persistent,
            RSA.certificate_index: other_certificate,
        }
    )

    with keys.endorsement_key(tpm, ["ecc-p256"]) as endorsement:  # type: ignore[arg-type]
        assert endorsement.area == GENUINE
        assert endorsement.certificate == CERTIFICATE


def test_another_key_is_told_only_after_every_way_to_make_it() -> None:
    stranger = VENDOR.certify(ec.generate_private_key(ec.SECP256R1()).public_key())
    tpm = OddTpm({P256.certificate_index: stranger, P256.nonce_index: NONCE})

    told = pytest.raises(errors.Unavailable, match="for another key than the TPM makes")
    with told, keys.endorsement_key(tpm, ["ecc-p256"]):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("code", RC_AGAIN)
def test_a_tpm_that_cannot_read_just_now_is_asked_again_later(code: int) -> None:
    tpm = OddTpm({P256.nonce_index: code, P256.certificate_index: CERTIFICATE})

    with pytest.raises(errors.Unavailable, match="TPM2_NV_Read failed"):
        nv_templates.templates(tpm, P256)  # type: ignore[arg-type]
