# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Every parser of bytes that somebody else made: one row each, fuzzed by `run` and tried with the
worst by the tests."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.state import charge
from ovirt_tcp_plugin.lab.engine import external_scheduler
from ovirt_tcp_plugin.messages import (
    components,
    ear,
    enrolment,
    eventlog,
    evidence,
    json_fields,
    oat,
    oat_whitelist,
    reference_values,
    result,
    tpm2,
    tpm12,
    vendor_certificate,
)
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.scheduler import http1, xmlrpc
from ovirt_tcp_plugin.verifier import authority, endorsement, endorsement12, revocation
from ovirt_tcp_plugin.verifier.appraisal import measured
from tests.fuzz import worst
from tests.messages import (
    ear_test,
    eventlog_test,
    evidence_test,
    oat_whitelist_test,
    reference_values_test,
    tpm2_test,
    tpm12_test,
)
from tests.placement import snapshot_test
from tests.verifier.appraisal import boot_steps
from tests.verifier.enrolled import certificate_request
from tests.verifier.software_tpm import SoftwareTpm, launch_events
from tests.verifier.software_tpm12 import SoftwareTpm12
from tests.verifier.vendor import NOW, Vendor, Vendor12

VENDOR = Vendor()
VENDOR12 = Vendor12()
TPM = SoftwareTpm()
TPM12 = SoftwareTpm12()
# A launch after what firmware says of its start, and of the state of Secure Boot.
_VARIABLE = bytes(16) + struct.pack("<QQ", 10, 1) + "SecureBoot".encode("utf-16-le") + b"\1"
BOOT = [
    eventlog.Event(0, eventlog.NO_ACTION, {"sha256": bytes(32)}, eventlog.STARTUP_LOCALITY + b"\3"),
    eventlog.Event(7, 0x80000001, {"sha256": bytes(32)}, _VARIABLE),
    *launch_events(),
]
AUTHORITY = authority.Authority(VENDOR.certificate, VENDOR.key)


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser under test.

    Attributes:
        parser: the public function, or method, that is tried.
        call: how it is called with nothing but bytes.
        good: an input that it reads.
        worst: makes the largest inputs of its form from a good one.
        declared: the one error that it may raise.
    """

    parser: Callable[..., object]
    call: Callable[[bytes], object]
    good: bytes
    worst: Callable[[bytes], Iterator[bytes]]
    declared: type[errors.Error] = errors.InvalidMessage


def _binary(parser: Callable[[bytes], object], good: bytes) -> Target:
    return Target(parser, parser, good, worst.binary)


def _json(parser: Callable[[bytes], object], good: Mapping[str, Any]) -> Target:
    return Target(parser, parser, json.dumps(good).encode(), worst.json_object)


def _parsed_json(parser: Callable[[object], object], good: Mapping[str, Any]) -> Target:
    """A decoder of what `fields.parse` has made of an answer."""
    return Target(
        parser,
        lambda untrusted: parser(json_fields.parse(untrusted, "answer", 2**24)),
        json.dumps(good).encode(),
        worst.json_object,
    )


def _whitelist(parser: Callable[[Mapping[str, object]], object], good: Mapping[str, Any]) -> Target:
    """A decoder of OpenAttestation's whitelist, whose faults bear codes."""
    target = _parsed_json(lambda one: parser(json_fields.members(one, "body")), good)
    return dataclasses.replace(target, parser=parser, declared=errors.Error)


def _check_ek(untrusted: bytes) -> None:
    endorsement.check_ek_certificate(untrusted, TPM.ek, VENDOR.authorities, NOW)


def _check_ek12(untrusted: bytes) -> None:
    endorsement12.check_ek_certificate(untrusted, TPM12.ek, VENDOR12.authorities, NOW)


def _steps(untrusted: bytes) -> None:
    """Do with a log what the appraisal does with one that replays."""
    events = eventlog.parse(untrusted, padded=True)
    eventlog.replay(events, "sha256", range(24))
    components.steps(events, "sha256", range(24))


TARGETS: Mapping[str, Target] = {
    "quote": _binary(tpm2.parse_quote, tpm2_test.quote()),
    "signature": _binary(tpm2.parse_signature, tpm2_test.ECDSA),
    "public": _binary(tpm2.parse_public, tpm2_test.ecc_public()),
    "rsa_public": _binary(tpm2.parse_public, tpm2_test.rsa_public()),
    "quote12": _binary(tpm12.parse_quote, tpm12_test.QUOTE2_VERSION),
    "public12": _binary(tpm12.parse_public_key, tpm12_test.PUBLIC),
    "key12": _binary(tpm12.parse_key, tpm12_test.key()),
    "attestation12": _binary(tpm12.parse_attestation, tpm12_test.ATTESTATION),
    "eventlog": Target(
        eventlog.parse,
        eventlog.parse,
        eventlog.encode(launch_events(), ["sha256"]),
        worst.event_log,
    ),
    "eventlog_part": Target(
        eventlog.read,
        lambda untrusted: eventlog.read(untrusted, pcrs=(0,)),
        eventlog.encode(launch_events(), ["sha256"]),
        worst.event_log,
    ),
    "eventlog_sha1": Target(eventlog.parse, eventlog.parse, eventlog_test.OLD, worst.event_log),
    "eventlog_padded": Target(
        eventlog.parse,
        lambda untrusted: eventlog.parse(untrusted, padded=True),
        eventlog.encode(launch_events(), ["sha256"]) + bytes(64),
        worst.event_log,
    ),
    "boot_steps": Target(
        components.steps, _steps, eventlog.encode(BOOT, ["sha256"]), worst.event_log
    ),
    "evidence": _json(evidence.decode, evidence.encode(evidence_test.GOOD)),
    "challenge": _parsed_json(
        evidence.decode_challenge,
        evidence.encode_challenge(
            evidence.Challenge(bytes(32), {"sha256": (17, 18)}, 15_000, {"txt": "a" * 64})
        ),
    ),
    "enrolment_request": _json(
        enrolment.decode_request,
        enrolment.encode(
            enrolment.EnrolmentRequest("token", "host-1", b"certificate", b"ek", b"ak")
        ),
    ),
    "credential_challenge": _parsed_json(
        enrolment.decode_challenge,
        enrolment.encode(enrolment.CredentialChallenge("7", b"credential", b"secret")),
    ),
    "enrolment_proof": _json(
        enrolment.decode_proof,
        enrolment.encode(enrolment.EnrolmentProof("7", b"request", b"attest", b"signature")),
    ),
    "enrolment_reply": _parsed_json(
        enrolment.decode_reply,
        enrolment.encode(
            enrolment.EnrolmentReply("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----")
        ),
    ),
    "oat_poll": _json(
        oat.decode_poll,
        {"hosts": ["host-1"], "timeThreshold": 1000, "PCRmask": "FFFFFF", "count": 1},
    ),
    "oat_answer": _json(
        oat.decode_answer, oat.encode_answer([oat.PolledHost("host-1", "trusted", NOW)])
    ),
    "oat_oem": _whitelist(oat_whitelist.decode_oem, oat_whitelist_test.OEM),
    "oat_os": _whitelist(oat_whitelist.decode_os, oat_whitelist_test.OS),
    "oat_mle": _whitelist(oat_whitelist.decode_mle, oat_whitelist_test.VMM),
    "oat_pcr": _whitelist(oat_whitelist.decode_pcr, oat_whitelist_test.PCR),
    "oat_host": _whitelist(oat_whitelist.decode_host, oat_whitelist_test.HOST),
    "oat_host_change": _whitelist(oat_whitelist.decode_host_change, oat_whitelist_test.HOST),
    "vtime": Target(
        oat.parse_vtime,
        lambda untrusted: oat.parse_vtime(untrusted.decode("latin-1")),
        b"2012-10-15T22:36:58.836+08:00",
        worst.binary,
    ),
    "result": _parsed_json(
        result.decode,
        result.encode(
            result.AttestationResult(
                "host-1", result.Level.UNTRUSTED, (result.Finding(8, "a", "b"),), 1, 2
            )
        ),
    ),
    "reference_set": _parsed_json(
        reference_values.decode, reference_values.encode(reference_values_test.SET)
    ),
    "reference_value": _parsed_json(
        reference_values.decode_value, reference_values.encode_value(reference_values_test.VALUE)
    ),
    "measured": Target(
        measured.decode,
        lambda untrusted: measured.decode(untrusted.decode("utf-8", "replace")),
        measured.encode(boot_steps.measured(boot_steps.steps())).encode(),
        worst.json_object,
    ),
    "snapshot": Target(
        snapshot.decode,
        lambda untrusted: snapshot.decode(untrusted, snapshot_test.BOOT),
        snapshot.encode(snapshot_test.GOOD),
        worst.json_object,
    ),
    "verdict": Target(
        ear.verify,
        lambda untrusted: ear.verify(untrusted, [ear_test.KEY.public_key()]),
        ear_test.TOKEN.encode(),
        worst.binary,
        errors.Error,
    ),
    "snapshot_confirmation": Target(
        snapshot.decode_confirmation,
        lambda untrusted: snapshot.decode_confirmation(untrusted, snapshot_test.BOOT),
        snapshot.encode_confirmation(snapshot_test.BOOT, 5),
        worst.json_object,
    ),
    "http_head": _binary(
        http1.parse_head, b"POST / HTTP/1.1\r\nConnection: keep-alive\r\nContent-Length: 7"
    ),
    "xmlrpc": Target(
        xmlrpc.parse_call,
        xmlrpc.parse_call,
        external_scheduler.request(
            "runFilters", [["TrustedHosts"], ["h1", "h2"], "vm", {"trust_scope": "all_vms"}]
        ),
        worst.xml,
    ),
    "ek_certificate": Target(
        endorsement.check_ek_certificate,
        _check_ek,
        VENDOR.certify(TPM.ek_key.public_key()),
        worst.binary,
        errors.Refused,
    ),
    "ek_certificate12": Target(
        endorsement12.check_ek_certificate,
        _check_ek12,
        VENDOR12.certify(TPM12.ek_key.public_key()),
        worst.binary,
        errors.Refused,
    ),
    "vendor_certificate": _binary(vendor_certificate.read, VENDOR.certify(TPM.ek_key.public_key())),
    "revocation_list": Target(
        revocation.parse,
        lambda untrusted: revocation.parse(untrusted, "file"),
        VENDOR.revoke([VENDOR.certify(TPM.ek_key.public_key())]),
        worst.binary,
    ),
    "vendor_chain": _binary(vendor_certificate.split, VENDOR.certify(TPM.ek_key.public_key()) * 2),
    "charge": Target(
        charge.parse,
        lambda untrusted: charge.parse(untrusted.decode("utf-8", "replace")),
        b"broker [refusal 0123456789abcdef fedcba9876543210 engine.lab]",
        worst.binary,
    ),
    "ek_authorities": Target(
        endorsement.load_authorities, endorsement.load_authorities, VENDOR.pem, worst.pem
    ),
    "certificate_request": Target(
        authority.Authority.issue_agent,
        lambda untrusted: AUTHORITY.issue_agent("host-1", untrusted, NOW),
        certificate_request(ec.generate_private_key(ec.SECP256R1())),
        worst.binary,
    ),
}
