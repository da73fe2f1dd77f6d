# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What it costs to check a quote, and to appraise a whole boot, beside the bare arithmetic."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ovirt_tcp_plugin.messages import components, evidence, reference_values, tpm2
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.appraisal import appraise
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import SignedQuote
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from tests.bench.harness import Benchmark, Sample, rates
from tests.verifier.software_tpm import AK_ATTRIBUTES, SoftwareTpm, firmware_events, sized

ALL_PCRS = {"sha256": tuple(range(24))}
UEFI = {"sha256": (0, 2, 4, 7)}


@contextlib.contextmanager
def quote_check_p256() -> Iterator[Callable[[], Sample]]:
    tpm = SoftwareTpm()
    attest, signature = tpm.quote(bytes(32), ALL_PCRS)
    host = tpm.host()
    yield lambda: rates(
        lambda: _quoted(attest, signature, host), _p256_floor(tpm, attest, signature)
    )


@contextlib.contextmanager
def quote_check_rsa2048() -> Iterator[Callable[[], Sample]]:
    tpm = SoftwareTpm()
    attest, _ = tpm.quote(bytes(32), ALL_PCRS)
    key = rsa.generate_private_key(65537, 2048)
    host = EnrolledTpm20("host-1", tpm.ek, _rsa_public(key))
    # The AK's Name is part of the quote, so the quote is made once more with the right one.
    attest = attest.replace(sized(tpm.host().qualified_signer), sized(host.qualified_signer))
    value = key.sign(attest, padding.PKCS1v15(), hashes.SHA256())
    signature = struct.pack(">HH", tpm2.ALG_RSASSA, tpm2.HASH_IDS["sha256"]) + sized(value)
    public, scheme, algorithm = key.public_key(), padding.PKCS1v15(), hashes.SHA256()
    yield lambda: rates(
        lambda: _quoted(attest, signature, host),
        lambda: public.verify(value, attest, scheme, algorithm),
    )


@contextlib.contextmanager
def appraisal_120_events() -> Iterator[Callable[[], Sample]]:
    """A UEFI boot that matches its reference values step by step.

    The floor verifies one P-256 signature and replays one bank.
    """
    tpm = SoftwareTpm()
    tpm.boot(firmware_events())
    issued = IssuedNonce(evidence.Challenge(bytes(32), UEFI, 15_000), "host-1", 0, 15_000)
    reported, host = tpm.report(issued, logs={"firmware": tpm.log}), tpm.host()
    steps = components.steps(tpm.events, "sha256", UEFI["sha256"])
    criteria = Criteria("sha256", [reference_values.from_boot("golden", "sha256", steps)])
    extends = [(event.pcr, event.digests["sha256"]) for event in tpm.events]
    verify = _p256_floor(tpm, reported.attest, reported.signature)

    def ours() -> None:
        outcome = appraise.appraise(reported, host, issued, None, None, UEFI, criteria, 1)
        assert isinstance(outcome, appraise.Appraised)
        assert outcome.level is Level.TRUSTED

    def floor() -> None:
        verify()
        values = dict.fromkeys(range(24), bytes(32))
        for pcr, digest in extends:
            values[pcr] = hashlib.sha256(values[pcr] + digest).digest()

    yield lambda: rates(ours, floor)


def _quoted(attest: bytes, signature: bytes, host: EnrolledTpm20) -> None:
    assert isinstance(host.check_quote(attest, signature, {}), SignedQuote)


def _p256_floor(tpm: SoftwareTpm, attest: bytes, signature: bytes) -> Callable[[], None]:
    parsed = tpm2.parse_signature(signature)
    assert isinstance(parsed, tpm2.EcdsaSignature)
    encoded = encode_dss_signature(parsed.r, parsed.s)
    public, scheme = tpm.ak_key.public_key(), ec.ECDSA(hashes.SHA256())
    return lambda: public.verify(encoded, attest, scheme)


def _rsa_public(key: rsa.RSAPrivateKey) -> tpm2.Public:
    head = struct.pack(">HHI", tpm2.ALG_RSA, tpm2.HASH_IDS["sha256"], AK_ATTRIBUTES) + sized(b"")
    scheme = struct.pack(">HHHHI", tpm2.ALG_NULL, tpm2.ALG_RSASSA, tpm2.HASH_IDS["sha256"], 2048, 0)
    return tpm2.parse_public(
        head + scheme + sized(key.public_key().public_numbers().n.to_bytes(256, "big"))
    )


BENCHMARKS = [
    Benchmark("quote_check_rsa2048", "1/s", quote_check_rsa2048, least_ratio=0.4),
    Benchmark("quote_check_p256", "1/s", quote_check_p256, least_ratio=0.6),
    Benchmark("appraisal_120_events", "1/s", appraisal_120_events, least_ratio=0.3),
]
