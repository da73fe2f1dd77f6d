# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""TPM 1.2 commands and keys.

On a real software TPM of that family, and on one that answers as the test says.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import keys, keys12
from ovirt_tcp_plugin.attester import tpm12 as commands
from ovirt_tcp_plugin.attester.tpm12 import WELL_KNOWN, Tpm12, Tpm12Error
from ovirt_tcp_plugin.attester.transport import Transport
from ovirt_tcp_plugin.lab import firmware, launch
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.lab.swtpm import clone
from ovirt_tcp_plugin.lab.swtpm12 import Swtpm12
from ovirt_tcp_plugin.messages import public_keys, tpm12
from tests.attester import signing_key
from tests.attester.scripted_tpm import ScriptedTpm
from tests.conftest import TpmPool

SHA1 = hashes.SHA1()  # noqa: S303 - TPM 1.2 has no other
LABEL, DATA = b"l" * 20, bytes(range(32))
OAEP = rsa_padding.OAEP(rsa_padding.MGF1(SHA1), SHA1, b"TCPA")
PCRS = (0, 17, 18)


@pytest.fixture
def chip(tpm_pool: TpmPool, tmp_path: Path) -> Iterator[Swtpm12]:
    clone(tpm_pool.state12(0), tmp_path / "tpm")
    with Swtpm12(tmp_path / "tpm") as made:
        yield made


@pytest.fixture
def tpm(chip: Swtpm12) -> Iterator[Tpm12]:
    connected = chip.connect()
    yield connected
    connected.close()


def public_key(area: bytes) -> rsa.RSAPublicKey:
    key = tpm12.parse_public_key(area).key
    return rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()


def verify(key: tpm12.PublicKey, signed: bytes, signature: bytes) -> None:
    public_key(key.area).verify(signature, signed, rsa_padding.PKCS1v15(), SHA1)


def identity_key(tpm: Tpm12) -> keys12.IdentityKey:
    return keys12.IdentityKey(tpm, tpm.make_identity(WELL_KNOWN, LABEL)[0])


def protect(tpm: Tpm12, key: tpm12.PublicKey, secret: bytes) -> tuple[bytes, bytes]:
    """Return what a Privacy CA sends.

    TPM_SYM_CA_ATTESTATION and the encrypted TPM_ASYM_CA_CONTENTS.
    """
    aes_key, initial = os.urandom(16), os.urandom(16)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(aes_key), modes.CBC(initial)).encryptor()
    encrypted = encryptor.update(padder.update(secret) + padder.finalize()) + encryptor.finalize()
    ek = public_key(tpm.read_endorsement_key(WELL_KNOWN))
    contents = ek.encrypt(tpm12.encode_asym_ca_contents(aes_key, key), OAEP)
    return tpm12.encode_attestation(initial, encrypted), contents


def test_the_certificate_is_for_the_ek(tpm: Tpm12) -> None:
    certificate = x509.load_der_x509_certificate(keys12.read_certificate(tpm, WELL_KNOWN))

    read = public_key(tpm.read_endorsement_key(WELL_KNOWN))
    assert public_keys.encode(certificate.public_key()) == public_keys.encode(read)


def test_this_makers_certificate_is_read_by_the_owner_only(tpm: Tpm12) -> None:
    with pytest.raises(Tpm12Error, match="the owner's or the SRK's secret is another"):
        keys12.read_certificate(tpm, b"x" * 20)


def test_a_tpm_may_have_no_certificate(tmp_path: Path) -> None:
    with Swtpm12(tmp_path / "bare") as bare:
        tpm = bare.connect()
        assert keys12.read_certificate(tpm, WELL_KNOWN) == b""
        tpm.close()


def test_an_identity_key_is_one_and_is_bound_to_its_label(tpm: Tpm12) -> None:
    area, binding = tpm.make_identity(WELL_KNOWN, LABEL)

    key = tpm12.parse_key(area)
    assert (key.usage, key.flags & tpm12.MIGRATABLE) == (tpm12.USAGE_IDENTITY, 0)
    assert (key.public.encryption_scheme, key.public.signature_scheme) == (
        tpm12.ES_NONE,
        tpm12.SS_RSASSA_SHA1,
    )
    verify(key.public, tpm12.identity_contents(LABEL, key.public), binding)


def test_making_an_identity_takes_the_owners_secret(tpm: Tpm12) -> None:
    with pytest.raises(
        Tpm12Error, match=r"TPM_MakeIdentity failed: .*the owner's secret is another \(code 0x1d\)"
    ):
        tpm.make_identity(b"x" * 20, LABEL)


@pytest.mark.parametrize("form", ["quote", "quote2"])
@pytest.mark.parametrize("indices", [PCRS, (), tuple(range(24))])
def test_quotes_in_both_forms(
    form: str, indices: tuple[int, ...], chip: Swtpm12, tpm: Tpm12, tpm_pool: TpmPool
) -> None:
    launch.power_on(chip, tpm, firmware.events(Machine(), tpm_pool.images, ("sha1",)))
    area, _ = tpm.make_identity(WELL_KNOWN, LABEL)
    handle = tpm.load_key(area)

    signed, signature = getattr(tpm, form)(handle, LABEL, indices)

    verify(tpm12.parse_key(area).public, signed, signature)
    quote = tpm12.parse_quote(signed)
    values = tpm.read_pcrs({"sha1": indices}).get("sha1", {})
    assert quote == tpm12.Quote12(
        LABEL, indices if form == "quote2" else None, tpm12.composite_digest(values)
    )


def test_a_key_fits_only_the_values_that_it_quoted(chip: Swtpm12, tpm: Tpm12) -> None:
    key = identity_key(tpm)
    signed, _ = key.quote(DATA, {"sha1": PCRS})
    values = tpm.read_pcrs({"sha1": PCRS})

    assert key.fits(signed, values)
    assert not key.fits(signed, {"sha1": {**values["sha1"], 0: b"x" * 20}})
    assert not key.fits(signed, {})
    assert tpm12.parse_quote(signed).qualifying_data == DATA[:20]


def test_a_bank_that_the_family_has_not_is_neither_read_nor_quoted(tpm: Tpm12) -> None:
    assert tpm.read_pcrs({"sha256": (17,)}) == {}
    signed, _ = identity_key(tpm).quote(DATA, {"sha256": (17,)})
    assert tpm12.parse_quote(signed).indices == ()


def test_a_key_is_loaded_again_after_a_reset(chip: Swtpm12, tpm: Tpm12) -> None:
    key = identity_key(tpm)
    key.quote(DATA, {"sha1": PCRS})

    launch.power_on(chip, tpm, ())

    key.quote(DATA, {"sha1": PCRS})
    assert len(tpm.handles(commands.RT_KEY)) == 1
    key.unload()
    assert tpm.handles(commands.RT_KEY) == tpm.handles(commands.RT_AUTH) == ()


def test_a_key_is_loaded_again_over_a_new_connection(tpm: Tpm12) -> None:
    key = identity_key(tpm)
    for _ in range(30):
        key.quote(DATA, {"sha1": PCRS})
        tpm.close()

    key.quote(DATA, {"sha1": PCRS})
    assert len(tpm.handles(commands.RT_KEY)) == 1


def test_a_command_that_failed_leaves_no_session(tpm: Tpm12) -> None:
    with pytest.raises(Tpm12Error):
        tpm.make_identity(b"x" * 20, LABEL)

    assert tpm.handles(commands.RT_AUTH) == ()


def test_activates_what_was_protected_for_ek_and_identity_key(tpm: Tpm12) -> None:
    key = identity_key(tpm)
    secret = os.urandom(32)

    protected = protect(tpm, tpm12.parse_key(key.area).public, secret)

    assert key.activate(*protected) == secret


def test_does_not_activate_what_was_protected_for_another_key(tpm: Tpm12) -> None:
    key, other = identity_key(tpm), identity_key(tpm)
    protected = protect(tpm, tpm12.parse_key(other.area).public, bytes(32))

    with pytest.raises(Tpm12Error, match="TPM_ActivateIdentity failed"):
        key.activate(*protected)


def test_does_not_activate_a_signing_key_that_quotes(tpm: Tpm12) -> None:
    """The only proof that a key is an identity key.

    What the host says of its usage is not signed.
    """
    key = keys12.IdentityKey(tpm, signing_key.make(tpm))
    public = tpm12.parse_key(key.area).public
    verify(public, *key.quote(DATA, {"sha1": PCRS}))

    with pytest.raises(Tpm12Error, match="TPM_ActivateIdentity failed"):
        key.activate(*protect(tpm, public, bytes(32)))


def test_does_not_load_a_signing_key_that_is_said_to_be_an_identity_key(tpm: Tpm12) -> None:
    area = signing_key.make(tpm)

    with pytest.raises(Tpm12Error, match="TPM_LoadKey2 failed"):
        tpm.load_key(area[:4] + struct.pack(">H", tpm12.USAGE_IDENTITY) + area[6:])


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(
            lambda attestation: attestation[:-1] + bytes([attestation[-1] ^ 1]), id="padding"
        ),
        pytest.param(
            lambda attestation: tpm12.encode_attestation(bytes(16), attestation[-15:]),
            id="half a block",
        ),
    ],
)
def test_says_that_the_verifier_sent_what_does_not_open(
    spoil: Callable[[bytes], bytes], tpm: Tpm12
) -> None:
    key = identity_key(tpm)
    attestation, contents = protect(tpm, tpm12.parse_key(key.area).public, bytes(32))

    with pytest.raises(
        errors.InvalidMessage, match="it does not open with the key that came with it"
    ):
        key.activate(spoil(attestation), contents)


def test_a_signature_covers_every_bit(tpm: Tpm12) -> None:
    area, _ = tpm.make_identity(WELL_KNOWN, LABEL)
    signed, signature = tpm.quote2(tpm.load_key(area), LABEL, PCRS)
    for bit in range(0, len(signed) * 8, 7):
        flipped = bytearray(signed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidSignature):
            verify(tpm12.parse_key(area).public, bytes(flipped), signature)


# A TPM that answers as the test says


def answer(rc: int, body: bytes = b"") -> bytes:
    return struct.pack(">HII", 0x00C4, 10 + len(body), rc) + body


@pytest.fixture
def scripted() -> Iterator[Callable[..., tuple[Tpm12, ScriptedTpm]]]:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tpm-")))

        def make(*answers: bytes) -> tuple[Tpm12, ScriptedTpm]:
            peer = ScriptedTpm(directory / "tpm", list(answers))
            stack.callback(peer.close)
            tpm = Tpm12(Transport(f"unix:{directory / 'tpm'}", 0.2))
            stack.callback(tpm.close)
            return tpm, peer

        yield make


Scripted = Callable[..., tuple[Tpm12, ScriptedTpm]]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (0x01, "the owner's or the SRK's secret is another"),
        (0x06, "the TPM is deactivated"),
        (0x07, "the TPM is disabled"),
        (0x12, "the TPM has no owner: run tpm_takeownership"),
        (0x803, "the TPM is locked out after wrong authorizations"),
        (0xFFFFFFFF, "the TPM refused it"),
    ],
)
def test_says_what_the_code_means(code: int, sentence: str, scripted: Scripted) -> None:
    tpm, _ = scripted(answer(code))

    with pytest.raises(
        Tpm12Error, match=f"TPM is unavailable: TPM_FlushSpecific failed: .*{sentence}"
    ):
        tpm.flush(1)


@pytest.mark.parametrize("code", commands.RC_AGAIN)
def test_repeats_a_command_when_the_tpm_asks_for_it(code: int, scripted: Scripted) -> None:
    tpm, peer = scripted(answer(code), answer(code), answer(0))

    tpm.flush(1)

    assert len(peer.commands) == 3


def test_quotes_in_the_old_form_where_the_chip_knows_no_other(scripted: Scripted) -> None:
    values = struct.pack(">I", 20) + bytes(20)
    old = tpm12.encode_selection([17]) + values + struct.pack(">I", 256) + b"s" * 256
    nothing_loaded = [answer(0, struct.pack(">IH", 2, 0))] * 2
    loading = [
        answer(0, struct.pack(">I", 7) + bytes(20)),
        answer(0, struct.pack(">I", 8) + bytes(41)),
    ]
    tpm, peer = scripted(*nothing_loaded, *loading, answer(commands.RC_BAD_ORDINAL), answer(0, old))

    signed, signature = keys12.IdentityKey(tpm, b"key").quote(DATA, {"sha1": (17,)})

    assert signed == tpm12.encode_quote(DATA[:20], tpm12.composite_digest({17: bytes(20)}))
    assert signature == b"s" * 256


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(answer(0, struct.pack(">I", 0)), "no bytes", id="nothing"),
        pytest.param(answer(0, struct.pack(">I", 900)), "were announced", id="more than there is"),
        pytest.param(answer(0), "ends at byte 0", id="empty"),
    ],
)
def test_an_answer_that_is_malformed(given: bytes, reason: str, scripted: Scripted) -> None:
    tpm, _ = scripted(given)

    with pytest.raises(errors.InvalidMessage, match=reason):
        tpm.read_nv(WELL_KNOWN, 0x1000F000, 0, 7)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(struct.pack(">HBHH", 0x1001, 1, 900, 0x1002), id="partial certificate"),
        pytest.param(struct.pack(">HBHH", 0xFFFF, 0xFF, 0xFFFF, 0xFFFF), id="never written"),
        pytest.param(struct.pack(">HBHH", 0x1001, 0, 0xFFFF, 0x1002), id="too large"),
        pytest.param(struct.pack(">HBHH", 0x1001, 0, 2, 0x1002), id="empty"),
    ],
)
def test_an_area_that_holds_no_certificate(header: bytes, scripted: Scripted) -> None:
    tpm, _ = scripted(answer(0, struct.pack(">I", 7) + header))

    with pytest.raises(errors.InvalidMessage, match="the NV area holds no whole certificate"):
        keys12.read_certificate(tpm, WELL_KNOWN)


def test_an_authorization_is_the_hmac_of_the_specification() -> None:
    """Part 1, 13.1.

    Over the command's digest, the TPM's nonce, ours, and whether the session goes on.
    """
    session = commands.AuthorizationSession(7, b"k" * 20, b"e" * 20)

    sent = session.authorize(b"d" * 20)

    inner = tpm12.sha1(
        bytes(b ^ 0x36 for b in b"k" * 20 + bytes(44)) + b"d" * 20 + b"e" * 20 + sent[4:25]
    )
    outer = tpm12.sha1(bytes(b ^ 0x5C for b in b"k" * 20 + bytes(44)) + inner)
    assert sent[:4] == b"\0\0\0\7" and sent[24:25] == b"\0" and sent[25:] == outer


class ClearedTpm:
    """A TPM 1.2 that does not take a key of before."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.transport = SimpleNamespace(connect=lambda: None, generation=1)

    def flush_leftovers(self) -> None:
        pass

    def load_key(self, area: bytes) -> int:
        raise Tpm12Error("TPM_LoadKey2", self.code)

    def quote2(self, key: int, external_data: bytes, indices: tuple[int, ...]) -> None:
        pass


@pytest.mark.parametrize("code", [0x0D, 0x12, 0x21])
def test_says_how_a_host_comes_back_whose_tpm_was_cleared(code: int) -> None:
    key = keys12.IdentityKey(ClearedTpm(code), b"area")  # type: ignore[arg-type]

    with pytest.raises(keys.KeyLost, match="ovirt-tcp-verifier token enrol HOST"):
        key.quote(DATA, {"sha1": (17,)})
