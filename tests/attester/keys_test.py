# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""EK and AK on a real software TPM; credentials are made by tpm2-tools."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import keys, templates
from ovirt_tcp_plugin.attester.tpm import (
    LOADED_SESSION_FIRST,
    RC_AGAIN,
    TRANSIENT_FIRST,
    Tpm,
    TpmError,
)
from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.swtpm import Swtpm
from ovirt_tcp_plugin.messages import public_keys, tpm2, vendor_certificate
from ovirt_tcp_plugin.verifier import endorsement as privacy_ca
from tests.attester import nv, quotes
from tests.verifier.vendor import Vendor

DATA = bytes(32)
VENDOR = Vendor()


def ak_under(
    tpm: Tpm, ek_kind: str, ak_kind: str = "ecc-p256"
) -> tuple[keys.AttestationKey, keys.Endorsement]:
    with keys.endorsement_key(tpm, [ek_kind]) as endorsement:
        return keys.AttestationKey(tpm, keys.create_ak(tpm, endorsement, ak_kind)), endorsement


def loaded(tpm: Tpm) -> int:
    """Return how many keys and sessions are loaded."""
    return len(tpm.handles(TRANSIENT_FIRST)) + len(tpm.handles(LOADED_SESSION_FIRST))


@pytest.mark.parametrize("ek_kind", ["rsa-2048", "ecc-p384"])
@pytest.mark.parametrize("ak_kind", list(templates.ATTESTATION_TEMPLATES))
def test_the_ak_is_restricted_and_hangs_under_the_certified_ek(
    ek_kind: str, ak_kind: str, tpm: Tpm
) -> None:
    ak, endorsement = ak_under(tpm, ek_kind, ak_kind)

    assert ak.public.attributes == 0x50472
    assert keys.kind_of(ak.blob) == ak_kind
    quote = tpm2.parse_quote(ak.quote(DATA, {"sha256": (17,)})[0])
    assert quote.qualified_signer == tpm2.qualified_name(endorsement.public, ak.public)
    certified = x509.load_der_x509_certificate(endorsement.certificate).public_key()
    if ek_kind == "rsa-2048":
        assert public_keys.encode(certified) == public_keys.encode(
            quotes.public_key(endorsement.area)
        )
    assert loaded(tpm) == 1


def test_every_template_gives_the_vendors_own_ek(tpm: Tpm) -> None:
    """What swtpm_setup made persistent by its own templates equals what ours make."""
    for kind in ("rsa-2048", "ecc-p384"):
        of_vendor = tpm.read_public(templates.ENDORSEMENT_KINDS[kind].persistent)
        handle, area = tpm.create_primary(
            tpm2.RH_ENDORSEMENT, templates.ENDORSEMENT_KINDS[kind].template
        )
        tpm.flush(handle)
        assert area == of_vendor


@pytest.mark.parametrize("ek_kind", ["rsa-2048", "ecc-p384"])
def test_makes_the_ek_again_where_it_is_not_persistent(ek_kind: str, tpm: Tpm) -> None:
    persistent = templates.ENDORSEMENT_KINDS[ek_kind].persistent
    tpm.execute(
        "TPM2_EvictControl",
        0x120,
        [0x40000001, persistent],
        [0x40000009],
        persistent.to_bytes(4, "big"),
    )

    ak, endorsement = ak_under(tpm, ek_kind)

    assert endorsement.handle & 0xFF000000 == TRANSIENT_FIRST
    ak.quote(DATA, {"sha256": (17,)})
    assert loaded(tpm) == 1


def test_does_not_take_another_key_for_the_certified_ek(tpm: Tpm) -> None:
    """Somebody put another key where the EK is kept: it is passed over."""
    persistent = templates.ENDORSEMENT_KINDS["rsa-2048"].persistent
    tpm.execute(
        "TPM2_EvictControl",
        0x120,
        [0x40000001, persistent],
        [0x40000009],
        persistent.to_bytes(4, "big"),
    )
    other, _ = tpm.create_primary(
        tpm2.RH_ENDORSEMENT, templates.ENDORSEMENT_KINDS["ecc-p256"].template
    )
    tpm.execute(
        "TPM2_EvictControl", 0x120, [0x40000001, other], [0x40000009], persistent.to_bytes(4, "big")
    )
    tpm.flush(other)

    _, endorsement = ak_under(tpm, "rsa-2048")

    assert isinstance(endorsement.public.key, tpm2.RsaKey)


def test_activates_what_tpm2_makecredential_protects(tpm: Tpm, tmp_path: Path) -> None:
    ak, endorsement = ak_under(tpm, "rsa-2048")
    secret = os.urandom(32)
    credential, encrypted = quotes.make_credential(
        endorsement.area, tpm2.name(ak.public), secret, tmp_path
    )

    assert ak.activate(credential, encrypted) == secret
    assert loaded(tpm) == 1


@pytest.mark.parametrize("ek_kind", ["rsa-2048", "ecc-p384"])
def test_activates_what_the_verifier_protects(ek_kind: str, tpm: Tpm) -> None:
    ak, endorsement = ak_under(tpm, ek_kind)
    secret, seed = os.urandom(32), os.urandom(tpm2.DIGEST_SIZES[endorsement.public.name_hash])
    credential, encrypted = privacy_ca.make_credential(
        endorsement.public, tpm2.name(ak.public), secret, seed
    )

    assert ak.activate(credential, encrypted) == secret


def test_does_not_activate_what_is_for_another_ak(tpm: Tpm) -> None:
    ak, endorsement = ak_under(tpm, "rsa-2048")
    other, _ = ak_under(tpm, "rsa-2048")
    credential, encrypted = privacy_ca.make_credential(
        endorsement.public, tpm2.name(other.public), bytes(32), bytes(range(32))
    )

    with pytest.raises(TpmError, match="TPM2_ActivateCredential failed"):
        ak.activate(credential, encrypted)
    assert loaded(tpm) == 1, "the policy session was left behind"


def test_the_ak_stays_loaded_and_comes_back_after_a_reset(host: LabHost, tpm: Tpm) -> None:
    ak, _ = ak_under(tpm, "rsa-2048")
    before = tpm2.parse_quote(ak.quote(DATA, {})[0])
    assert loaded(tpm) == 1

    launch.power_on(host.swtpm, tpm, [])

    after = tpm2.parse_quote(ak.quote(DATA, {})[0])
    assert after.reset_count == before.reset_count + 1
    assert after.qualified_signer == before.qualified_signer


def test_many_crashes_do_not_lock_the_tpm_out(host: LabHost, tpm: Tpm) -> None:
    """Without noDA, each reset without shutdown counts as a wrong authorization.

    Swtpm allows three.
    """
    ak, _ = ak_under(tpm, "ecc-p384")
    for _ in range(8):
        ak.quote(DATA, {"sha256": (17,)})
        launch.power_on(host.swtpm, tpm, [])


def test_a_killed_agent_leaves_no_key_in_the_way(host: LabHost, tpm: Tpm) -> None:
    """Three slots and no resource manager: each start clears what the one before left."""
    ak, _ = ak_under(tpm, "rsa-2048")
    for _ in range(5):
        killed = keys.AttestationKey(tpm, ak.blob)
        killed.quote(DATA, {})
        tpm.transport.close()


def test_unloads_the_ak(tpm: Tpm) -> None:
    ak, _ = ak_under(tpm, "rsa-2048")
    ak.quote(DATA, {})
    ak.unload()
    ak.unload()

    assert loaded(tpm) == 0


def test_the_blob_is_of_no_use_to_another_tpm(tpm: Tpm, make_host: Callable[..., LabHost]) -> None:
    ak, _ = ak_under(tpm, "rsa-2048")
    other = make_host().connect()

    with pytest.raises(keys.KeyLost, match="the key blob is of another TPM, or was changed"):
        keys.AttestationKey(other, ak.blob).quote(DATA, {})
    assert loaded(other) == 0
    other.close()


def test_says_how_a_host_comes_back_whose_tpm_was_cleared(
    make_host: Callable[..., LabHost],
) -> None:
    tpm = make_host().connect()
    ak, _ = ak_under(tpm, "rsa-2048")
    ak.quote(DATA, {"sha256": (17,)})
    tpm.execute("TPM2_Clear", 0x126, [0x4000000C], [0x40000009])

    with pytest.raises(keys.KeyLost, match="it was cleared after this host was enrolled") as told:
        ak.quote(DATA, {"sha256": (17,)})

    assert "ovirt-tcp-verifier token enrol HOST" in str(told.value)
    # The EK is what it was, so enrolment needs nothing but a token.
    again, _ = ak_under(tpm, "rsa-2048")
    again.quote(DATA, {"sha256": (17,)})
    tpm.close()


def test_says_how_a_host_comes_back_whose_endorsement_seed_was_changed(
    make_host: Callable[..., LabHost],
) -> None:
    tpm = make_host().connect()
    ak, _ = ak_under(tpm, "rsa-2048")
    tpm.execute("TPM2_ChangeEPS", 0x124, [0x4000000C], [0x40000009])

    with pytest.raises(keys.KeyLost, match="for another key than the TPM makes.*replace-tpm"):
        ak.quote(DATA, {"sha256": (17,)})
    tpm.close()


def test_uses_the_ek_of_a_tpm_without_certificate(tmp_path: Path) -> None:
    with Swtpm(tmp_path / "tpm") as swtpm:
        tpm = swtpm.connect()
        with keys.endorsement_key(tpm) as endorsement:
            assert endorsement.certificate == b""
            ak = keys.AttestationKey(tpm, keys.create_ak(tpm, endorsement, "ecc-p256"))
        attest, _ = ak.quote(DATA, {})
        assert tpm2.parse_quote(attest).qualified_signer == tpm2.qualified_name(
            endorsement.public, ak.public
        )
        tpm.close()


def test_says_that_the_certificate_is_for_another_key(make_host: Callable[..., LabHost]) -> None:
    """The endorsement seed was changed (TPM2_ChangeEPS).

    The certificates stay, the keys are others.
    """
    tpm = make_host().connect()
    tpm.execute("TPM2_ChangeEPS", 0x124, [0x4000000C], [0x40000009])

    with pytest.raises(errors.Unavailable, match="is for another key than the TPM makes"):
        ak_under(tpm, "rsa-2048")
    assert loaded(tpm) == 0
    tpm.close()


class FaultyNv:
    """A TPM whose NV indices of EK certificates hold what they should not."""

    def __init__(self, content: bytes = b"", code: int = 0) -> None:
        self.content = content
        self.code = code

    def read_nv(self, index: int) -> bytes:
        if self.code:
            raise TpmError("TPM2_NV_Read", self.code)
        return self.content


@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 1024, b"\xff" * 1024, b"\x30\x82\xff"])
def test_a_blank_index_holds_no_certificate(content: bytes) -> None:
    assert keys.read_certificate(FaultyNv(content), "rsa-2048") is None  # type: ignore[arg-type]


@given(st.binary(max_size=2000))
def test_any_content_of_an_index_is_a_certificate_or_none(content: bytes) -> None:
    found = keys.read_certificate(FaultyNv(content), "rsa-2048")  # type: ignore[arg-type]
    assert found is None or found in content


@pytest.mark.parametrize("code", [0x14A, 0x149, 0x148, 0x12F, 0x98E, 0x18B])
def test_an_index_that_cannot_be_read_holds_no_certificate(code: int) -> None:
    assert keys.read_certificate(FaultyNv(code=code), "rsa-2048") is None  # type: ignore[arg-type]


@pytest.mark.parametrize("code", RC_AGAIN)
def test_a_tpm_that_cannot_read_just_now_is_not_without_a_certificate(code: int) -> None:
    with pytest.raises(TpmError):
        keys.read_certificate(FaultyNv(code=code), "rsa-2048")  # type: ignore[arg-type]


def test_one_spoilt_index_does_not_hide_the_good_one(make_host: Callable[..., LabHost]) -> None:
    tpm = make_host().connect()
    index = templates.ENDORSEMENT_KINDS["rsa-2048"].certificate_index
    nv.undefine(tpm, index)
    nv.define(tpm, index, 1024)

    with keys.endorsement_key(tpm) as endorsement:
        assert endorsement.kind != "rsa-2048"
        assert endorsement.certificate
    tpm.close()


def test_reads_the_authorities_that_lie_in_the_chip(make_host: Callable[..., LabHost]) -> None:
    tpm = make_host().connect()
    certificates = [
        VENDOR.certificate.public_bytes(serialization.Encoding.DER),
        Vendor("on-die", issuer=VENDOR).certificate.public_bytes(serialization.Encoding.DER),
    ]
    content = b"".join(certificates)
    # One is cut in two by the end of an index; there is padding, and an index nobody has written.
    nv.write(tpm, 0x01C00100, content[:700])
    nv.write(tpm, 0x01C00101, content[700:] + bytes(50))
    nv.define(tpm, 0x01C00102, 100)
    nv.write(tpm, 0x01C00200, b"of another purpose")

    assert keys.read_chain(tpm) == content
    tpm.close()


def test_a_chip_without_authorities_has_none(tpm: Tpm) -> None:
    assert keys.read_chain(tpm) == b""


class ChainNv(FaultyNv):
    """A TPM whose NV indices of authorities hold what they should not."""

    def handles(self, first: int) -> tuple[int, ...]:
        return tuple(range(first, first + 64))


@given(st.binary(max_size=2000))
def test_any_content_of_these_indices_is_authorities_or_none(content: bytes) -> None:
    chain = keys.read_chain(ChainNv(content))  # type: ignore[arg-type]
    assert len(chain) <= vendor_certificate.MAX_CHAIN_SIZE


@pytest.mark.parametrize("code", [0x14A, 0x149, 0x148, 0x12F, 0x98E, 0x18B])
def test_indices_of_authorities_that_cannot_be_read_are_passed_over(code: int) -> None:
    assert keys.read_chain(ChainNv(code=code)) == b""  # type: ignore[arg-type]


def test_a_certificate_that_nobody_can_read_is_not_of_another_key(
    make_host: Callable[..., LabHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    tpm = make_host().connect()
    monkeypatch.setattr(keys, "read_certificate", lambda tpm, kind: b"\x30\x82odd")

    with keys.endorsement_key(tpm, ["rsa-2048"]) as endorsement:
        assert endorsement.certificate == b"\x30\x82odd"
    tpm.close()


def test_cuts_the_header_of_a_tpm_12_before_a_certificate() -> None:
    certificate = b"\x30\x82\x01\x00" + bytes(256)

    assert keys.cut_certificate(b"\x10\x01\x00\x01\x04" + certificate) == certificate


@pytest.mark.parametrize("padding", [b"", b"\0" * 200, b"\xff" * 200])
def test_cuts_padding_behind_a_certificate(padding: bytes) -> None:
    certificate = b"\x30\x82\x01\x00" + bytes(256)

    assert keys.cut_certificate(certificate + padding) == certificate


@pytest.mark.parametrize(
    "content", [b"", b"\x30\x82", b"\xff" * 100, b"\x30\x82\x01\x00" + bytes(255)]
)
def test_refuses_what_is_no_certificate(content: bytes) -> None:
    with pytest.raises(errors.InvalidMessage, match="EK certificate"):
        keys.cut_certificate(content)
