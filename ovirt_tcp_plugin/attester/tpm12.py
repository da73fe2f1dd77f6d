# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The TPM 1.2 commands that an attester needs, one method each.

Source: "TPM Main Specification" 1.2 revision 116, Part 3.

Authorizations are HMACs of a session (Part 1, 13). That of the SRK is taken to be well known, as
`tpm_takeownership -z` leaves it, and keys made here need none. The HMACs of answers are not looked
at: nothing that the verifier believes rests on them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import os
import struct
from collections.abc import Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.transport import HEADER_SIZE, TpmRefusal, Transport, until_ready
from ovirt_tcp_plugin.messages import tpm2, tpm12
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader

WELL_KNOWN = bytes(tpm12.DIGEST_SIZE)  # TSS_WELL_KNOWN_SECRET

KH_SRK = 0x40000000  # TPM_KEY_HANDLE, Part 2, 4.4.1
KH_OWNER = 0x40000001
KH_EK = 0x40000006

# Tags of a command with no, one or two sessions; an answer's trailer has 41 bytes for each.
_TAGS = (0x00C1, 0x00C2, 0x00C3)
_TRAILER_SIZE = 41
_ANSWER_TAG = b"\x00\xc4"
# TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES, TPM_PT_FAMILY_INDICATOR, 1)
_TPM2_COMMAND = struct.pack(">HIIIII", 0x8001, 22, 0x17A, 6, 0x100, 1)
_CONTINUE = b"\0"  # every session is for one command

_NO_VERSION = b"\0"
_CAP_HANDLE = 0x14
RT_KEY = 1
RT_AUTH = 2
_ET_OWNER = 0x0002

NV_CHUNK = 512
MAX_NV_SIZE = 8192
MAX_SIGNATURE_SIZE = 256

# Answers that ask for the same command again (Part 2, 16): retry, self test running.
RC_AGAIN = (0x800, 0x802)
RC_BAD_INDEX = 0x02
RC_AUTH_CONFLICT = 0x3B
RC_BAD_ORDINAL = 0x0A
RC_INVALID_KEY_HANDLE = 0x0C

# TPM_BAD_KEY_PROPERTY of a key of another SRK, TPM_NOSRK, TPM_DECRYPT_ERROR (Part 2, 16): so a key
# is refused after the owner was cleared.
RC_KEY_LOST = (0x0D, 0x12, 0x21)
_SENTENCES = {
    0x01: "the authorization failed: the owner's or the SRK's secret is another",
    RC_BAD_INDEX: "there is no such area",
    0x06: "the TPM is deactivated",
    0x07: "the TPM is disabled",
    0x0D: "the SRK or the key it protects is another one: the TPM has a new owner",
    0x12: "the TPM has no owner: run tpm_takeownership",
    0x15: "the TPM has no room for another key; something else keeps keys loaded",
    0x1D: "the authorization failed: the owner's secret is another",
    0x26: "the TPM was not started by the firmware",
    0x803: "the TPM is locked out after wrong authorizations",
}


class Tpm12Error(TpmRefusal):
    """The TPM refused a command. `code` is its TPM_RESULT."""

    def __init__(self, command: str, code: int) -> None:
        self.code = code
        sentence = _SENTENCES.get(code, "the TPM refused it")
        super().__init__("TPM", f"{command} failed: {sentence} (code {code:#04x})")


@dataclasses.dataclass(frozen=True)
class AuthorizationSession:
    """An authorization session (OIAP or OSAP).

    `key` is the secret of its HMACs, `nonce` the TPM's.
    """

    handle: int
    key: bytes
    nonce: bytes

    def authorize(self, digest: bytes) -> bytes:
        """Return the authorization of the command with that digest (Part 1, 13.1)."""
        odd = os.urandom(tpm12.DIGEST_SIZE)
        proof = hmac.new(self.key, digest + self.nonce + odd + _CONTINUE, "sha1").digest()
        return struct.pack(">I", self.handle) + odd + _CONTINUE + proof


class Tpm12:
    """A TPM 1.2 behind a transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def execute(
        self,
        name: str,
        ordinal: int,
        handles: Sequence[int] = (),
        parameters: bytes = b"",
        sessions: Sequence[AuthorizationSession] = (),
    ) -> TpmReader:
        """Run one command and return what its answer holds between header and sessions.

        Args:
            name: the command's name, for errors.
            handles: key handles, which no authorization covers.

        Raises:
            Tpm12Error: the TPM refused.
            Unavailable: it did not answer.
        """
        command = _command(ordinal, handles, parameters, sessions)
        answer = until_ready(self.transport, command, RC_AGAIN)
        (rc,) = struct.unpack(">I", answer[6:HEADER_SIZE])
        if rc:
            self._give_up(sessions)
            raise Tpm12Error(name, rc)
        end = len(answer) - _TRAILER_SIZE * len(sessions)
        return TpmReader(answer[HEADER_SIZE : max(end, HEADER_SIZE)], f"answer to {name}")

    # Sessions: the one command that each is for ends it

    def plain_session(self, secret: bytes) -> AuthorizationSession:
        """Return a session for one use of what has that secret (TPM_OIAP, 18.1)."""
        answer = self.execute("TPM_OIAP", 0x0A)
        return AuthorizationSession(answer.u32(), secret, answer.take(tpm12.DIGEST_SIZE))

    def owner_session(self, secret: bytes) -> AuthorizationSession:
        """Return a session of the owner in which a new secret can be put in (TPM_OSAP, 18.2)."""
        odd = os.urandom(tpm12.DIGEST_SIZE)
        parameters = struct.pack(">HI", _ET_OWNER, KH_OWNER) + odd
        answer = self.execute("TPM_OSAP", 0x0B, parameters=parameters)
        handle = answer.u32()
        nonce = answer.take(tpm12.DIGEST_SIZE)
        shared = hmac.new(secret, answer.take(tpm12.DIGEST_SIZE) + odd, "sha1").digest()
        return AuthorizationSession(handle, shared, nonce)

    def _give_up(self, sessions: Sequence[AuthorizationSession]) -> None:
        """End the sessions of a command that failed; some TPMs (libtpms) keep them."""
        for session in sessions:
            with contextlib.suppress(errors.Error):
                self.flush(session.handle, RT_AUTH)

    # Keys

    def read_endorsement_key(self, owner: bytes) -> bytes:
        """Return the TPM_PUBKEY of the EK (TPM_OwnerReadInternalPub, 14.4).

        TPM_ReadPubek ends with ownership.
        """
        sessions = [self.plain_session(owner)]
        parameters = struct.pack(">I", KH_EK)
        answer = self.execute("TPM_OwnerReadInternalPub", 0x81, (), parameters, sessions)
        return answer.take(answer.left)

    def make_identity(self, owner: bytes, label_digest: bytes) -> tuple[bytes, bytes]:
        """Return (TPM_KEY12, binding) of a new identity key (TPM_MakeIdentity, 15.1).

        Args:
            owner: the owner's secret.
            label_digest: 20 bytes that the binding, a signature by the new key, covers.
        """
        key = tpm12.encode_key(
            tpm12.USAGE_IDENTITY, tpm12.ES_NONE, tpm12.SS_RSASSA_SHA1, tpm12.AUTH_NEVER
        )
        srk = self.plain_session(WELL_KNOWN)
        session = self.owner_session(owner)
        # The key needs no secret, yet one must be given, hidden as any other (Part 1, 13.5): twenty
        # zeros.
        hidden = tpm12.sha1(session.key + session.nonce)
        parameters = hidden + label_digest + key
        answer = self.execute(
            "TPM_MakeIdentity", tpm12.ORD_MAKE_IDENTITY, (), parameters, [srk, session]
        )
        return tpm12.take_key(answer).area, _take_signature(answer)

    def activate_identity(self, owner: bytes, key: int, blob: bytes) -> bytes:
        """Return the AES key in a blob that was encrypted for EK and identity key.

        TPM_ActivateIdentity (15.2).
        """
        parameters = struct.pack(">I", len(blob)) + blob
        answer = self.execute(
            "TPM_ActivateIdentity", 0x7A, [key], parameters, [self.plain_session(owner)]
        )
        return tpm12.take_symmetric_key(answer)

    def load_key(self, key: bytes) -> int:
        """Return the handle of a loaded TPM_KEY12 under the SRK (TPM_LoadKey2, 10.5)."""
        return self.execute(
            "TPM_LoadKey2", 0x41, [KH_SRK], key, [self.plain_session(WELL_KNOWN)]
        ).u32()

    def flush(self, handle: int, kind: int = RT_KEY) -> None:
        """Unload a key or session (TPM_FlushSpecific, 22.1)."""
        self.execute("TPM_FlushSpecific", 0xBA, [handle], struct.pack(">I", kind))

    def flush_leftovers(self) -> None:
        """Unload what somebody left behind.

        No kernel keeps apart who loaded what into a TPM 1.2.
        """
        for kind in (RT_KEY, RT_AUTH):
            for handle in self.handles(kind):
                self.flush(handle, kind)

    def handles(self, kind: int) -> tuple[int, ...]:
        """Return the handles in use of a kind, RT_KEY or RT_AUTH (TPM_GetCapability, 7.1)."""
        parameters = struct.pack(">III", _CAP_HANDLE, 4, kind)
        answer = self.execute("TPM_GetCapability", 0x65, parameters=parameters)
        answer.u32()
        return tuple(answer.u32() for _ in range(min(answer.u16(), 64)))

    # Attestation

    def quote(self, key: int, external_data: bytes, indices: Sequence[int]) -> tuple[bytes, bytes]:
        """Return (signed bytes, signature) in the form "QUOT" (TPM_Quote, 16.3)."""
        answer = self.execute(
            "TPM_Quote", 0x16, [key], external_data + tpm12.encode_selection(indices)
        )
        signed = tpm12.encode_quote(
            external_data, tpm12.composite_digest(tpm12.take_composite(answer))
        )
        return signed, _take_signature(answer)

    def quote2(self, key: int, external_data: bytes, indices: Sequence[int]) -> tuple[bytes, bytes]:
        """Return (signed bytes, signature) in the form "QUT2", which names the PCRs itself.

        TPM_Quote2 (16.5).
        """
        parameters = external_data + tpm12.encode_selection(indices) + _NO_VERSION
        answer = self.execute("TPM_Quote2", 0x3E, [key], parameters)
        info = tpm12.take_pcr_info_short(answer).area
        version_info = answer.take(answer.u32())
        return tpm12.encode_quote2(external_data, info, version_info), _take_signature(answer)

    def read_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        """Return the values of the selected PCRs.

        A TPM 1.2 has but the bank sha1 (TPM_PcrRead, 16.2).

        Each is read by a command of its own, so the values may be of different moments.
        """
        indices = selection.get(tpm12.BANK, ())
        return {tpm12.BANK: {index: self._read_pcr(index) for index in indices}} if indices else {}

    def _read_pcr(self, index: int) -> bytes:
        return self.execute("TPM_PcrRead", 0x15, parameters=struct.pack(">I", index)).take(
            tpm12.DIGEST_SIZE
        )

    # Storage

    def read_nv(self, owner: bytes, index: int, offset: int, size: int) -> bytes:
        """Return `size` bytes of an NV area, which its maker left open to all or to the owner.

        TPM_NV_ReadValue (20.4).
        """
        content = b""
        while len(content) < size:
            place = struct.pack(
                ">III", index, offset + len(content), min(NV_CHUNK, size - len(content))
            )
            answer = self._read_nv_once(owner, place)
            chunk = answer.take(answer.u32())
            if not chunk:
                raise answer.invalid("no bytes")
            content += chunk
        return content

    def _read_nv_once(self, owner: bytes, place: bytes) -> TpmReader:
        try:
            return self.execute("TPM_NV_ReadValue", 0xCF, (), place)
        except Tpm12Error as e:
            if e.code != RC_AUTH_CONFLICT:
                raise
        return self.execute("TPM_NV_ReadValue", 0xCF, (), place, [self.plain_session(owner)])

    def close(self) -> None:
        """End the connection."""
        self.transport.close()


def is_tpm12(transport: Transport) -> bool:
    """Return whether the TPM is of family 1.2.

    Such a one answers a command of TPM 2.0 in its own form, with an error.

    Asked of the chip itself, as the kernel does; files under /sys are not there for every device.

    Raises:
        Unavailable: it does not answer.
    """
    answer = transport.exchange(_TPM2_COMMAND)
    return answer[:2] == _ANSWER_TAG


def _take_signature(answer: TpmReader) -> bytes:
    size = answer.u32()
    if size > MAX_SIGNATURE_SIZE:
        raise answer.invalid(f"a signature of {size} bytes")
    return answer.take(size)


def _command(
    ordinal: int,
    handles: Sequence[int],
    parameters: bytes,
    sessions: Sequence[AuthorizationSession],
) -> bytes:
    """Return a whole command (Part 3, 3); the sessions authorize ordinal and parameters."""
    digest = tpm12.sha1(struct.pack(">I", ordinal) + parameters)
    handle_area = b"".join(struct.pack(">I", handle) for handle in handles)
    authorizations = b"".join(session.authorize(digest) for session in sessions)
    body = handle_area + parameters + authorizations
    tag = _TAGS[len(sessions)]
    header = struct.pack(">HII", tag, HEADER_SIZE + len(body), ordinal)
    return header + body
