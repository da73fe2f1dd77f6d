# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A TPM 1.2 signing key.

It quotes as well as an identity key does, and signs whatever else it is given.
"""

from __future__ import annotations

import hmac
import os
import struct

from ovirt_tcp_plugin.attester.tpm12 import KH_SRK, WELL_KNOWN, AuthorizationSession, Tpm12
from ovirt_tcp_plugin.messages import tpm12

_ET_KEYHANDLE = 1


def make(tpm: Tpm12) -> bytes:
    """Return the TPM_KEY12 of a new signing key (TPM_CreateWrapKey, Part 3, 10.4)."""
    odd = os.urandom(20)
    answer = tpm.execute(
        "TPM_OSAP", 0x0B, parameters=struct.pack(">HI", _ET_KEYHANDLE, KH_SRK) + odd
    )
    handle, nonce = answer.u32(), answer.take(20)
    session = AuthorizationSession(
        handle, hmac.new(WELL_KNOWN, answer.take(20) + odd, "sha1").digest(), nonce
    )
    hidden = tpm12.sha1(session.key + session.nonce)
    template = tpm12.encode_key(
        tpm12.USAGE_SIGNING, tpm12.ES_NONE, tpm12.SS_RSASSA_SHA1, tpm12.AUTH_NEVER
    )
    answer = tpm.execute("TPM_CreateWrapKey", 0x1F, [KH_SRK], hidden + hidden + template, [session])
    return tpm12.take_key(answer).area
