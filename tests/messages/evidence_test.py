# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Challenge and Evidence: whole messages come back, everything else is malformed."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import evidence, tpm2
from tests.messages import hostile
from tests.messages.json_values import json_values

BOOT_ID = "01234567-89ab-cdef-0123-456789abcdef"
GOOD = evidence.Evidence(
    nonce=bytes(range(32)),
    attest=b"attest",
    signature=b"signature",
    pcrs={"sha256": {17: b"\xff" * 32, 0: bytes(32)}, "sha1": {}},
    logs={"txt": b"log"},
    boot_id=BOOT_ID,
    boottime_ms=12345,
    agent_version="0.1.0",
)
ENCODED = json.dumps(evidence.encode(GOOD)).encode()

blobs = st.binary(max_size=100)
pcrs = st.dictionaries(
    st.just("sha256"),
    st.dictionaries(st.integers(0, 23), st.binary(min_size=32, max_size=32), max_size=24),
)


def changed(**members: object) -> bytes:
    return json.dumps({**evidence.encode(GOOD), **members}).encode()


@given(
    st.builds(
        evidence.Evidence,
        nonce=st.binary(max_size=32),
        attest=blobs,
        signature=blobs,
        pcrs=pcrs,
        logs=st.dictionaries(st.sampled_from(evidence.LOGS), blobs),
        boot_id=st.uuids().map(str),
        boottime_ms=st.integers(0, 2**53),
        agent_version=st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64
        ),
    )
)
def test_evidence_comes_back(told: evidence.Evidence) -> None:
    assert evidence.decode(json.dumps(evidence.encode(told)).encode()) == told


def test_evidence_with_named_logs_comes_back() -> None:
    named = evidence.name_known_logs(GOOD, {"txt": evidence.log_digest(b"log")})
    assert (named.logs, list(named.log_digests)) == ({}, ["txt"])
    assert evidence.decode(json.dumps(evidence.encode(named)).encode()) == named


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"txt": evidence.log_digest(b"another")},
        {"firmware": evidence.log_digest(b"log")},
        {"txt": evidence.log_digest(b"log"), "firmware": evidence.log_digest(b"log")},
    ],
)
def test_logs_travel_unless_all_of_them_are_known(known: dict[str, str]) -> None:
    assert evidence.name_known_logs(GOOD, known) is GOOD


def test_evidence_that_says_why_a_log_is_absent_comes_back() -> None:
    absences = {"firmware": evidence.Absence("absent", "no event log of the firmware")}
    told = dataclasses.replace(GOOD, absences=absences)
    assert evidence.decode(json.dumps(evidence.encode(told)).encode()) == told
    assert "absences" not in evidence.encode(GOOD)


@pytest.mark.parametrize(
    "absences",
    [
        {"kernel": {"reason": "absent", "note": "x"}},
        {"txt": "absent"},
        {"txt": {"reason": "absent"}},
        {"txt": {"reason": "x" * 21, "note": "x"}},
        {"txt": {"reason": "absent", "note": "x" * 401}},
    ],
)
def test_absences_are_bounded(absences: object) -> None:
    with pytest.raises(errors.InvalidMessage):
        evidence.decode(changed(absences=absences))


def test_a_verifier_of_an_older_release_takes_no_absences() -> None:
    challenge = evidence.Challenge(bytes(32), {"sha256": (17,)}, 1, takes_absences=True)
    members = evidence.encode_challenge(challenge)
    assert evidence.decode_challenge(members).takes_absences
    del members["takes_absences"]
    assert not evidence.decode_challenge(members).takes_absences


def test_evidence_that_carries_its_logs_is_that_of_older_releases() -> None:
    assert "log_digests" not in evidence.encode(GOOD)


def test_a_challenge_of_an_older_release_knows_no_logs() -> None:
    challenge = evidence.Challenge(bytes(32), {"sha256": (17,)}, 1, {"txt": "a" * 64})
    members = evidence.encode_challenge(challenge)
    del members["known_logs"]
    assert evidence.decode_challenge(members).known_logs == {}


def test_a_log_that_is_not_wanted_is_not_looked_at() -> None:
    rubbish = changed(logs={"txt": "AAAA", "firmware": 5})
    assert evidence.decode(rubbish, ["txt"]).logs == {"txt": b"\0\0\0"}
    with pytest.raises(errors.InvalidMessage, match="firmware: not a text"):
        evidence.decode(rubbish, ["firmware"])
    with pytest.raises(errors.InvalidMessage, match="unknown log"):
        evidence.decode(changed(logs={"kernel": "AAAA"}), ["txt"])


@pytest.mark.parametrize("name", list(evidence.encode(GOOD)))
def test_every_member_is_needed(name: str) -> None:
    members = evidence.encode(GOOD)
    del members[name]

    with pytest.raises(errors.InvalidMessage):
        evidence.decode(json.dumps(members).encode())


@pytest.mark.parametrize("name", list(evidence.encode(GOOD)))
@given(value=json_values)
def test_any_value_of_a_member_is_read_or_malformed(name: str, value: object) -> None:
    hostile.survives(evidence.decode, changed(**{name: value}))


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        pytest.param(changed(version=2), "version: not between 1 and 1", id="version"),
        pytest.param(changed(version=True), "version: not a whole number", id="version true"),
        pytest.param(changed(nonce="A" * 45), "nonce: longer than", id="long nonce"),
        pytest.param(changed(nonce="AA\n="), "nonce: not base64", id="nonce with line break"),
        pytest.param(changed(attest="é"), "attest: not base64", id="not ASCII"),
        pytest.param(changed(attest="A" * 1400), "attest: longer than", id="long attest"),
        pytest.param(
            changed(boot_id=BOOT_ID.upper()), "not a kernel boot id", id="upper-case boot id"
        ),
        pytest.param(
            changed(boot_id=BOOT_ID[:-1] + "\n"),
            "not a kernel boot id",
            id="boot id with line break",
        ),
        pytest.param(changed(boottime_ms=-1), "boottime_ms: not between", id="before the boot"),
        pytest.param(
            changed(boottime_ms=1.5), "boottime_ms: not a whole number", id="half a millisecond"
        ),
        pytest.param(
            changed(boottime_ms=2**53 + 1), "boottime_ms: not between", id="after the end"
        ),
        pytest.param(changed(logs={"ima": ""}), "unknown log 'ima'", id="unknown log"),
        pytest.param(changed(logs=[]), "logs: not a JSON object", id="list of logs"),
        pytest.param(changed(attest_2="AA=="), "unknown member 'attest_2'", id="a second quote"),
        pytest.param(changed(attest=["AA==", "AA=="]), "attest: not", id="a list of quotes"),
        pytest.param(changed(log_digests=[]), "log_digests: not a JSON object", id="list of names"),
        pytest.param(
            changed(log_digests={"txt": "a" * 64}), "both carries and names", id="log and name"
        ),
        pytest.param(
            changed(logs={}, log_digests={"ima": "a" * 64}), "unknown log 'ima'", id="unknown name"
        ),
        pytest.param(
            changed(logs={}, log_digests={"txt": "A" * 64}), "64 digits", id="upper-case digest"
        ),
        pytest.param(
            changed(logs={}, log_digests={"txt": "a" * 64 + "\n"}), "64 digits", id="long digest"
        ),
        pytest.param(changed(logs={}, log_digests={"txt": 5}), "64 digits", id="no digest"),
        pytest.param(changed(pcrs={"md5": {}}), "unknown bank 'md5'", id="unknown bank"),
        pytest.param(
            changed(pcrs={"sha256": {"24": "00" * 32}}), "not between 0 and 23", id="PCR 24"
        ),
        pytest.param(
            changed(pcrs={"sha256": {"017": "00" * 32}}), "not between 0 and 23", id="octal PCR"
        ),
        pytest.param(
            changed(pcrs={"sha256": {"١٧": "00" * 32}}), "not between 0 and 23", id="Arabic PCR"
        ),
        pytest.param(
            changed(pcrs={"sha256": {"17": "00" * 20}}), "is not 32 bytes", id="short value"
        ),
        pytest.param(
            changed(pcrs={"sha256": {"17": "FF" * 32}}), "in lower-case hex", id="upper-case value"
        ),
        pytest.param(changed(pcrs={"sha256": {"17": 5}}), "is not 32 bytes", id="number"),
        pytest.param(
            changed(agent_version="v" * 65), "agent_version: longer than 64", id="long version"
        ),
        pytest.param(ENCODED.replace(b"12345", b"NaN"), "not JSON", id="NaN"),
        pytest.param(b"[]", "not a JSON object", id="list"),
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"\xff" + ENCODED, "not JSON", id="not UTF-8"),
        pytest.param(b'{"a":' * 8_000, "too many values", id="nested"),
        pytest.param(b"[" * 20_000, "too many values", id="many values"),
    ],
)
def test_refuses_what_is_no_evidence(untrusted: bytes, reason: str) -> None:
    with pytest.raises(errors.InvalidMessage, match=reason):
        evidence.decode(untrusted)


@given(
    st.binary(max_size=2000)
    | hostile.mutations(ENCODED)
    | json_values.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_read_or_malformed(untrusted: bytes) -> None:
    hostile.survives(evidence.decode, untrusted)


def test_the_largest_logs_fit_into_the_largest_message() -> None:
    half = base64.b64encode(bytes(evidence.MAX_LOG_SIZE // 2)).decode()
    largest = changed(logs={kind: half for kind in evidence.LOGS})

    assert len(largest) < evidence.MAX_EVIDENCE_SIZE
    assert len(evidence.decode(largest).logs["txt"]) == evidence.MAX_LOG_SIZE // 2
    with pytest.raises(errors.InvalidMessage, match="longer than"):
        evidence.decode(largest + b" " * evidence.MAX_EVIDENCE_SIZE)


def test_evidence_with_the_largest_logs_is_read_in_bounds() -> None:
    log = base64.b64encode(os.urandom(evidence.MAX_LOG_SIZE)).decode()
    hostile.in_bounds(evidence.decode, changed(logs={"firmware": log}))


@pytest.mark.parametrize("sizes", [{"other": 1}, {"txt": 0}, {"txt": "1"}, {"txt": True}, [1]])
def test_odd_sizes_of_oversized_logs_are_malformed(sizes: object) -> None:
    with pytest.raises(errors.InvalidMessage):
        evidence.decode(changed(oversized_logs=sizes))


@given(
    st.binary(min_size=32, max_size=32),
    st.dictionaries(
        st.sampled_from(sorted(tpm2.HASH_IDS)),
        st.sets(st.integers(0, 23)).map(lambda s: tuple(sorted(s))),
    ),
    st.integers(1, 3_600_000),
    st.dictionaries(st.sampled_from(evidence.LOGS), st.just("a" * 64)),
)
def test_a_challenge_comes_back(
    nonce: bytes, selection: tpm2.Selection, lifetime_ms: int, known: dict[str, str]
) -> None:
    told = evidence.Challenge(nonce, selection, lifetime_ms, known)

    assert (
        evidence.decode_challenge(json.loads(json.dumps(evidence.encode_challenge(told)))) == told
    )


@given(
    json_values
    | st.fixed_dictionaries(
        {
            "nonce": json_values,
            "selection": json_values,
            "lifetime_ms": json_values,
            "known_logs": json_values,
        }
    )
)
def test_any_json_is_a_challenge_or_malformed(untrusted: Any) -> None:
    hostile.survives(evidence.decode_challenge, untrusted)


def test_the_qualifying_data_binds_nonce_boot_and_time() -> None:
    seen = {
        evidence.qualifying_data(nonce, boot_id, boottime_ms)
        for nonce in (bytes(32), b"\1" + bytes(31))
        for boot_id in (BOOT_ID, BOOT_ID[:-1] + "0")
        for boottime_ms in (0, 1)
    }

    assert len(seen) == 8
    assert {len(data) for data in seen} == {32}
