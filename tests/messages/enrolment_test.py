# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The messages of enrolment: whole ones come back, everything else is malformed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import enrolment
from tests.messages import hostile
from tests.messages.json_values import json_values


def from_value(decode: Callable[[Any], object]) -> Callable[[bytes], object]:
    """Return a decoder of bytes; the attester parses JSON first, with `fields.parse`."""

    def decode_bytes(untrusted: bytes) -> object:
        return decode(json.loads(untrusted))

    return decode_bytes


MESSAGES = [
    pytest.param(
        enrolment.EnrolmentRequest("token", "host-1", b"certificate", b"ek", b"ak"),
        enrolment.decode_request,
        id="request",
    ),
    pytest.param(
        enrolment.CredentialChallenge("7", b"credential", b"secret"),
        from_value(enrolment.decode_challenge),
        id="challenge",
    ),
    pytest.param(
        enrolment.EnrolmentProof("7", b"request", b"attest", b"signature"),
        enrolment.decode_proof,
        id="proof",
    ),
    pytest.param(
        enrolment.EnrolmentReply("a", "b"), from_value(enrolment.decode_reply), id="reply"
    ),
]
Decode = Callable[[bytes], object]


@pytest.mark.parametrize(("message", "decode"), MESSAGES)
def test_a_message_comes_back(message: object, decode: Decode) -> None:
    assert decode(json.dumps(enrolment.encode(message)).encode()) == message


@pytest.mark.parametrize(("message", "decode"), MESSAGES)
def test_every_member_is_needed_and_bounded(message: object, decode: Decode) -> None:
    good = enrolment.encode(message)
    for name in good:
        for bad in (None, 5, [], {}, "A" * 24_000):
            with pytest.raises(errors.InvalidMessage, match=f"malformed {name}"):
                decode(json.dumps({**good, name: bad}).encode())
        if name == "ek_chain":
            continue  # an agent of an earlier release has none
        with pytest.raises(errors.InvalidMessage, match=f"malformed {name}"):
            decode(json.dumps({key: value for key, value in good.items() if key != name}).encode())


@pytest.mark.parametrize(("message", "decode"), MESSAGES)
@given(value=json_values)
def test_any_json_is_read_or_malformed(message: object, decode: Decode, value: object) -> None:
    hostile.survives(decode, json.dumps(value).encode())
    for name in enrolment.encode(message):
        hostile.survives(decode, json.dumps({**enrolment.encode(message), name: value}).encode())


@pytest.mark.parametrize("decode", [enrolment.decode_request, enrolment.decode_proof])
@given(untrusted=st.binary(max_size=2000))
def test_any_bytes_are_read_or_malformed(decode: Decode, untrusted: bytes) -> None:
    hostile.survives(decode, untrusted)


def test_the_qualifying_data_binds_secret_and_request() -> None:
    seen = {
        enrolment.qualifying_data(secret, request)
        for secret in (b"a", b"b")
        for request in (b"c", b"d")
    }

    assert len(seen) == 4
    assert {len(data) for data in seen} == {32}
