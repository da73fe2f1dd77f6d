# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The TPM 2.0 commands that an attester needs (TPM library, Part 3), one method each.

All authorizations are empty passwords, or policy sessions without an authorization value; so no
session carries an HMAC. Answers come from a device that may be faulty: they are parsed like any
peer's.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.transport import HEADER_SIZE, TpmRefusal, Transport, until_ready
from ovirt_tcp_plugin.messages import tpm2
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader

RH_OWNER = 0x40000001
RH_NULL = 0x40000007
RS_PW = 0x40000009
TRANSIENT_FIRST = 0x80000000
LOADED_SESSION_FIRST = 0x02000000

ST_NO_SESSIONS = 0x8001
ST_SESSIONS = 0x8002

# Answers that ask for the same command again (Part 2, 6.6.3): yielded, self test running, NV memory
# written too often, retry, NV memory not available.
RC_AGAIN = (0x908, 0x90A, 0x920, 0x922, 0x923)

RC_SUCCESS = 0x000
RC_OBJECT_MEMORY = 0x902
RC_LOCKOUT = 0x921
RC_REFERENCES = range(0x910, 0x920)
RC_HANDLE = 0x08B
RC_INTEGRITY = 0x09F

# TPMA_NV_AUTHREAD (Part 2, 13.4): the index may be read with its own, empty authorization.
NV_AUTHREAD = 1 << 18
# TPM_PT_NV_BUFFER_MAX is at least this on PC Client TPMs.
NV_CHUNK = 512
MAX_NV_SIZE = 8192
TPM_CAP_HANDLES = 1
MAX_HANDLES = 64
# More rounds than PCRs: a TPM answers at least one value a round, or none at all.
MAX_PCR_READS = tpm2.PCR_COUNT * tpm2.MAX_BANKS

_SENTENCES = {
    0x100: "the TPM was not started by the firmware",
    RC_OBJECT_MEMORY: "the TPM has no room for another key; something else keeps keys loaded",
    0x903: "the TPM has no room for another session; something else keeps sessions open",
    RC_LOCKOUT: "the TPM is locked out after wrong authorizations",
    0x120: "the TPM is disabled",
    0x101: "the TPM is in failure mode",
}
# Format-one codes (Part 2, 6.6.3), without the number of the handle, session or parameter.
_FORMAT_ONE = {
    0x082: "an attribute does not fit",
    0x084: "a value is out of range",
    0x085: "the hierarchy is not enabled",
    RC_HANDLE: "there is no such handle",
    0x08E: "the authorization failed: the hierarchy has a password",
    0x09D: "the policy of the key was not met",
    RC_INTEGRITY: "the key blob is of another TPM, or was changed",
    0x0A2: "the authorization failed: the hierarchy has a password",
}


class TpmError(TpmRefusal):
    """The TPM refused a command. `code` is its TPM_RC."""

    def __init__(self, command: str, code: int) -> None:
        self.code = code
        super().__init__("TPM", f"{command} failed: {_sentence(code)} (code {code:#05x})")

    @property
    def handle_gone(self) -> bool:
        """Whether a key or session that was loaded is there no longer: the TPM was reset."""
        return self.code in RC_REFERENCES or _format_one(self.code) == RC_HANDLE

    @property
    def is_of_another_tpm(self) -> bool:
        """Whether a key blob was made by another TPM, or before this one was cleared."""
        return _format_one(self.code) == RC_INTEGRITY


class Tpm:
    """A TPM 2.0 behind a transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def execute(
        self,
        name: str,
        code: int,
        handles: Sequence[int] = (),
        sessions: Sequence[int] = (),
        parameters: bytes = b"",
    ) -> TpmReader:
        """Run one command and return what follows its answer's header.

        Args:
            name: the command's name, for errors.
            sessions: RS_PW (empty password) or a policy session for each handle that needs
                authorization.

        Raises:
            TpmError: the TPM refused.
            Unavailable: it did not answer.
        """
        tag = ST_SESSIONS if sessions else ST_NO_SESSIONS
        body = _handle_area(handles) + _authorization_area(sessions) + parameters
        header = struct.pack(">HII", tag, HEADER_SIZE + len(body), code)
        answer = until_ready(self.transport, header + body, RC_AGAIN)
        (rc,) = struct.unpack(">I", answer[6:HEADER_SIZE])
        if rc != RC_SUCCESS:
            raise TpmError(name, rc)
        return TpmReader(answer[HEADER_SIZE:], f"answer to {name}")

    # Keys

    def read_public(self, handle: int) -> bytes:
        """Return the TPMT_PUBLIC of a loaded or persistent key (TPM2_ReadPublic, 12.4)."""
        return self.execute("TPM2_ReadPublic", 0x173, [handle]).sized(tpm2.MAX_PUBLIC_SIZE)

    def create_primary(self, hierarchy: int, template: bytes) -> tuple[int, bytes]:
        """Return (handle, TPMT_PUBLIC) of the primary key of a template.

        TPM2_CreatePrimary (24.1).
        """
        parameters = _creation(template)
        answer = self.execute("TPM2_CreatePrimary", 0x131, [hierarchy], [RS_PW], parameters)
        handle = answer.u32()
        answer.u32()
        return handle, answer.sized(tpm2.MAX_PUBLIC_SIZE)

    def create(self, parent: int, session: int, template: bytes) -> tuple[bytes, bytes]:
        """Return (TPM2B_PRIVATE without length, TPMT_PUBLIC) of a new key (TPM2_Create, 12.1)."""
        parameters = _creation(template)
        answer = self.execute("TPM2_Create", 0x153, [parent], [session], parameters)
        answer.u32()
        private = answer.sized(tpm2.MAX_PUBLIC_SIZE)
        return private, answer.sized(tpm2.MAX_PUBLIC_SIZE)

    def load(self, parent: int, session: int, private: bytes, public: bytes) -> int:
        """Return the handle of a loaded key (TPM2_Load, 12.2)."""
        parameters = _sized(private) + _sized(public)
        answer = self.execute("TPM2_Load", 0x157, [parent], [session], parameters)
        return answer.u32()

    def flush(self, handle: int) -> None:
        """Unload a key or session (TPM2_FlushContext, 28.4)."""
        parameters = struct.pack(">I", handle)
        self.execute("TPM2_FlushContext", 0x165, parameters=parameters)

    def activate_credential(
        self, ak: int, ek: int, ek_session: int, credential: bytes, secret: bytes
    ) -> bytes:
        """Return what the credential protects (TPM2_ActivateCredential, 12.5)."""
        handles = [ak, ek]
        sessions = [RS_PW, ek_session]
        parameters = _sized(credential) + _sized(secret)
        answer = self.execute("TPM2_ActivateCredential", 0x147, handles, sessions, parameters)
        answer.u32()
        return answer.sized(tpm2.MAX_DIGEST_SIZE)

    # Sessions

    @contextlib.contextmanager
    def endorsement_session(self, hash_name: str, branches: Sequence[bytes] = ()) -> Iterator[int]:
        """Give a policy session that holds PolicySecret(endorsement).

        It is good for one use of an EK (TPM2_PolicySecret, 23.4).

        Args:
            hash_name: hash of the policy, that of the EK's Name.
            branches: the policies that the EK's policy is a choice of (TPM2_PolicyOR, 23.6); none
                if it is no choice.
        """
        session = self._start_policy_session(hash_name)
        try:
            secret = _sized(b"") * 3 + struct.pack(">i", 0)
            handles = [tpm2.RH_ENDORSEMENT, session]
            self.execute("TPM2_PolicySecret", 0x151, handles, [RS_PW], secret)
            if branches:
                choice = struct.pack(">I", len(branches))
                choice += b"".join(_sized(branch) for branch in branches)
                self.execute("TPM2_PolicyOR", 0x171, [session], parameters=choice)
            yield session
        except BaseException:
            # A session ends with the command it authorizes, but not with one that failed.
            with contextlib.suppress(errors.Error):
                self.flush(session)
            raise

    def _start_policy_session(self, hash_name: str) -> int:
        nonce = _sized(os.urandom(16))
        no_salt = _sized(b"")
        kind = struct.pack(">BHH", 1, tpm2.ALG_NULL, tpm2.HASH_IDS[hash_name])
        handles = [RH_NULL, RH_NULL]
        parameters = nonce + no_salt + kind
        return self.execute("TPM2_StartAuthSession", 0x176, handles, (), parameters).u32()

    # Attestation

    def quote(
        self, ak: int, qualifying_data: bytes, selection: tpm2.Selection
    ) -> tuple[bytes, bytes]:
        """Return (TPMS_ATTEST, TPMT_SIGNATURE) in the AK's own scheme (TPM2_Quote, 18.4)."""
        own_scheme = struct.pack(">H", tpm2.ALG_NULL)
        parameters = _sized(qualifying_data) + own_scheme + tpm2.encode_selection(selection)
        answer = self.execute("TPM2_Quote", 0x158, [ak], [RS_PW], parameters)
        size = answer.u32()
        quoted = TpmReader(answer.take(size), "answer to TPM2_Quote")
        attest = quoted.sized(tpm2.MAX_ATTEST_SIZE)
        return attest, quoted.take(quoted.left)

    def read_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        """Return the values of the selected PCRs (TPM2_PCR_Read, 22.4).

        Those of an inactive bank are absent. A TPM answers at most eight values at once, so the
        values may be of different moments.
        """
        values: dict[str, dict[int, bytes]] = {}
        left: tpm2.Selection = {bank: indices for bank, indices in selection.items() if indices}
        for _ in range(MAX_PCR_READS):
            if not left:
                break
            read = self._read_some_pcrs(left)
            if not any(read.values()):
                break
            for bank, by_index in read.items():
                values.setdefault(bank, {}).update(by_index)
            left = _without(left, read)
        return values

    def _read_some_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        """Return as many of the selected PCRs as the TPM gives at once."""
        parameters = tpm2.encode_selection(selection)
        answer = self.execute("TPM2_PCR_Read", 0x17E, parameters=parameters)
        answer.u32()  # a counter of changes
        selected = tpm2.take_selection(answer)
        answer.u32()  # the number of values
        values = {}
        for bank, indices in selected.items():
            values[bank] = {index: answer.sized(tpm2.MAX_DIGEST_SIZE) for index in indices}
        return values

    # Storage and capabilities

    def read_nv(self, index: int) -> bytes:
        """Return the content of an NV index, at most MAX_NV_SIZE bytes (TPM2_NV_Read, 31.13)."""
        area = self.execute("TPM2_NV_ReadPublic", 0x169, [index]).sized(256)
        public = TpmReader(area, "TPMS_NV_PUBLIC")
        public.u32()
        public.u16()
        authorization = index if public.u32() & NV_AUTHREAD else RH_OWNER
        public.sized(tpm2.MAX_DIGEST_SIZE)
        size = public.u16()
        if size > MAX_NV_SIZE:
            raise public.invalid(f"{size} bytes, at most {MAX_NV_SIZE} are allowed")
        content = b""
        while len(content) < size:
            chunk_size = min(NV_CHUNK, size - len(content))
            content += self._read_nv_chunk(authorization, index, len(content), chunk_size)
        return content

    def _read_nv_chunk(self, authorization: int, index: int, offset: int, size: int) -> bytes:
        handles = [authorization, index]
        parameters = struct.pack(">HH", size, offset)
        answer = self.execute("TPM2_NV_Read", 0x14E, handles, [RS_PW], parameters)
        answer.u32()
        chunk = answer.sized(NV_CHUNK)
        if not chunk:
            raise answer.invalid("no bytes")
        return chunk

    def handles(self, first: int) -> tuple[int, ...]:
        """Return the handles in use from `first` on, of its type (TPM2_GetCapability, 30.2)."""
        parameters = struct.pack(">III", TPM_CAP_HANDLES, first, MAX_HANDLES)
        answer = self.execute("TPM2_GetCapability", 0x17A, parameters=parameters)
        answer.u8()  # whether there are more
        answer.u32()  # the capability again
        count = min(answer.u32(), MAX_HANDLES)
        return tuple(answer.u32() for _ in range(count))

    def flush_leftovers(self) -> None:
        """Unload what an earlier connection left behind; only where no resource manager does so."""
        if self.transport.managed:
            return
        for first in (TRANSIENT_FIRST, LOADED_SESSION_FIRST):
            for handle in self.handles(first):
                self.flush(handle)

    def close(self) -> None:
        """End the connection."""
        self.transport.close()


def _creation(template: bytes) -> bytes:
    """Return the parameters of a creation with empty authorization, no outside data and no PCR."""
    sensitive = _sized(_sized(b"") * 2)
    outside = _sized(b"")
    no_pcr = struct.pack(">I", 0)
    return sensitive + _sized(template) + outside + no_pcr


def _without(selection: tpm2.Selection, read: tpm2.PcrValues) -> tpm2.Selection:
    """Return the selected PCRs that were not read yet."""
    left = {}
    for bank, indices in selection.items():
        unread = tuple(index for index in indices if index not in read.get(bank, {}))
        if unread:
            left[bank] = unread
    return left


def _handle_area(handles: Sequence[int]) -> bytes:
    return b"".join(struct.pack(">I", handle) for handle in handles)


def _authorization_area(sessions: Sequence[int]) -> bytes:
    """Return the authorizations of a command, which has none at all without sessions."""
    if not sessions:
        return b""
    area = b"".join(struct.pack(">IHBH", session, 0, 0, 0) for session in sessions)
    return struct.pack(">I", len(area)) + area


def _sized(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def _format_one(code: int) -> int:
    """Return a format-one code without its number, 0 for others (Part 2, 6.6.3)."""
    return code & 0x0BF if code & 0x080 else 0


def _sentence(code: int) -> str:
    return _SENTENCES.get(code) or _FORMAT_ONE.get(_format_one(code), "the TPM refused it")
