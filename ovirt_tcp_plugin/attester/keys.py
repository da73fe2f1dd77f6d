# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The attester's two keys: the EK that the TPM's vendor certified, and the AK under it that quotes.

Source: TCG "EK Credential Profile for TPM Family 2.0" 2.5.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import logging
from collections.abc import Iterator, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.nv_templates import read_optional, templates
from ovirt_tcp_plugin.attester.templates import (
    ATTESTATION_TEMPLATES,
    CHAIN_INDICES,
    ENDORSEMENT_KINDS,
    POLICY_A_SHA384,
    POLICY_B_SHA384,
    POLICY_C_SHA384,
)
from ovirt_tcp_plugin.attester.tpm import RC_AGAIN, Tpm, TpmError
from ovirt_tcp_plugin.attester.transport import TpmRefusal
from ovirt_tcp_plugin.messages import der, public_keys, tpm2, vendor_certificate

log = logging.getLogger("attester.keys")

# TCG_PCCLIENT_STORED_CERT of a full certificate, before its two-byte size (TCG "PC Client Specific
# Implementation Specification for Conventional BIOS" 1.21, 7.4.5).
_STORED_FULL = b"\x10\x01\x00"
_STORED_HEADER_SIZE = 5
# With padding, before the authorities are told apart.
MAX_CHAIN_CONTENT_SIZE = 64 * 1024


class KeyLost(TpmRefusal):
    """The TPM does not take the enrolled AK: it was cleared (TPM2_Clear), or is another chip."""

    def __init__(self, refusal: errors.Error) -> None:
        reason = (
            f"it was cleared after this host was enrolled, or is another chip ({refusal}). "
            "Enrol the host again: `ovirt-tcp-verifier token enrol HOST` on the server, "
            "`ovirt-tcp-agent enrol` here; for another chip, `ovirt-tcp hosts replace-tpm HOST` "
            "before"
        )
        super().__init__("TPM", reason)


class EndorsementChanged(errors.Unavailable):
    """The TPM makes another EK than the one that is certified."""


@dataclasses.dataclass(frozen=True)
class KeyBlob:
    """A key that only its TPM can use, as it is kept on disk.

    Attributes:
        endorsement: kind of the EK it hangs under, a name of ENDORSEMENT_KINDS.
        public: TPMT_PUBLIC.
        private: TPM2B_PRIVATE without length, encrypted by the TPM.
    """

    endorsement: str
    public: bytes
    private: bytes


@dataclasses.dataclass(frozen=True)
class Endorsement:
    """The EK while it is loaded. `certificate` is DER, empty if the TPM has none."""

    kind: str
    handle: int
    area: bytes
    certificate: bytes

    @property
    def public(self) -> tpm2.Public:
        """The parsed TPMT_PUBLIC."""
        return tpm2.parse_public(self.area)


def read_certificate(tpm: Tpm, kind: str) -> Optional[bytes]:
    """Return the DER of the EK certificate of that kind, None if the TPM has none.

    An index that is unwritten, blank or not readable holds no certificate of that kind; another
    kind may have one.

    Raises:
        Unavailable: the TPM does not answer.
    """
    content = read_optional(tpm, ENDORSEMENT_KINDS[kind].certificate_index)
    if not content:
        return None
    try:
        return cut_certificate(content)
    except errors.InvalidMessage as e:
        log.warning("no certificate kind=%s reason=%s", kind, e)
        return None


def read_chain(tpm: Tpm) -> bytes:
    """Return the authorities of the EK's certificate that lie in the TPM; DER, one after the other.

    An index that cannot be read is passed over, and what goes beyond the bounds is left out: the
    verifier has what it needs, or says which issuer is missing.

    Raises:
        Unavailable: the TPM does not answer.
    """
    content = b""
    for index in tpm.handles(CHAIN_INDICES.start):
        if index in CHAIN_INDICES and len(content) < MAX_CHAIN_CONTENT_SIZE:
            content += read_optional(tpm, index)
    chain = b""
    for certificate in vendor_certificate.split(content):
        if len(chain) + len(certificate) <= vendor_certificate.MAX_CHAIN_SIZE:
            chain += certificate
        else:
            log.warning("authority left out size=%d", len(certificate))
    return chain


def cut_certificate(content: bytes) -> bytes:
    """Return the DER at the start of an NV index; vendors fill the rest with zeros or ones.

    Some put the header before it that belongs to a TPM 1.2.

    Raises:
        InvalidMessage: no sequence as long as every certificate is.
    """
    if content.startswith(_STORED_FULL):
        content = content[_STORED_HEADER_SIZE:]
    if not vendor_certificate.BEGIN.match(content):
        raise errors.InvalidMessage("EK certificate", "the NV index holds no certificate")
    return der.first(content, "EK certificate").encoded


@contextlib.contextmanager
def endorsement_key(
    tpm: Tpm, kinds: Sequence[str] = tuple(ENDORSEMENT_KINDS)
) -> Iterator[Endorsement]:
    """Give the first EK of these kinds that has a certificate for the block.

    If none has a certificate, it is the first that there is.

    Raises:
        EndorsementChanged: the TPM makes another key than the one that is certified.
        Unavailable: it makes none of these kinds.
    """
    faults = []
    error: type[errors.Unavailable] = errors.Unavailable
    certificates = {kind: read_certificate(tpm, kind) for kind in kinds}
    certified = [kind for kind in kinds if certificates[kind]]
    for kind in certified or kinds:
        try:
            with _loaded(tpm, kind, certificates[kind] or b"") as endorsement:
                yield endorsement
                return
        except _OtherKeyError:
            error = EndorsementChanged
            fault = f"the certificate of the {kind} EK is for another key than the TPM makes"
            faults.append(
                f"{fault} from any template: its endorsement seed was changed (TPM2_ChangeEPS), or "
                "the certificate is another chip's; ask the maker of the machine"
            )
        except _NoKeyError as e:
            faults.append(f"it makes no {kind} EK ({e})")
    raise error("TPM endorsement", "; ".join(faults))


@contextlib.contextmanager
def _loaded(tpm: Tpm, kind: str, certificate: bytes) -> Iterator[Endorsement]:
    """Give the EK for the block.

    It is the persistent one if that is the certified one, else it is made from a template.
    """
    persistent = ENDORSEMENT_KINDS[kind].persistent
    area = _persistent(tpm, persistent) if certificate else None
    if area is not None and _is_certified(area, certificate):
        yield Endorsement(kind, persistent, area, certificate)
        return
    handle, area = _made(tpm, kind, certificate)
    try:
        yield Endorsement(kind, handle, area, certificate)
    finally:
        # A reset in between has flushed it already; nothing is lost then.
        with contextlib.suppress(errors.Error):
            tpm.flush(handle)


def _made(tpm: Tpm, kind: str, certificate: bytes) -> tuple[int, bytes]:
    """Return (handle, TPMT_PUBLIC) of the certified EK; the specification's without a certificate.

    Raises:
        _OtherKeyError: the TPM makes others only.
        _NoKeyError: the TPM makes none.
        Unavailable: it does not answer.
    """
    specified = [ENDORSEMENT_KINDS[kind].template]
    candidates = templates(tpm, ENDORSEMENT_KINDS[kind]) if certificate else specified
    fault: Exception = _OtherKeyError()
    for template in candidates:
        log.info("making key=ek kind=%s", kind)
        try:
            handle, area = tpm.create_primary(tpm2.RH_ENDORSEMENT, template)
        except TpmError as e:
            fault = _NoKeyError(str(e))
            continue
        if not certificate or _is_certified(area, certificate) is not False:
            return handle, area
        tpm.flush(handle)
        fault = _OtherKeyError()
    raise fault


class _OtherKeyError(Exception):
    """The certificate is for another key."""


class _NoKeyError(Exception):
    """The TPM cannot make an EK of this kind."""


def _persistent(tpm: Tpm, handle: int) -> Optional[bytes]:
    try:
        return tpm.read_public(handle)
    except TpmError as e:
        if e.code in RC_AGAIN:
            raise
        if not e.handle_gone:
            log.warning("unreadable handle=%#x reason=%s", handle, e)
        return None


def _is_certified(area: bytes, certificate: bytes) -> Optional[bool]:
    """Return whether the certificate is for that key, None if either cannot be read.

    Who signed it, and whether the verifier can read it, is the verifier's question.
    """
    try:
        key = public_keys.load(tpm2.parse_public(area))
        certified = vendor_certificate.read(certificate).key()
    except errors.InvalidMessage as e:
        log.warning("not compared key=ek reason=%s", e)
        return None
    return public_keys.encode(key) == public_keys.encode(certified)


@contextlib.contextmanager
def use_of(tpm: Tpm, ek: tpm2.Public) -> Iterator[int]:
    """Give the session that authorizes one use of an EK (EK Credential Profile, B.6).

    Always by policy, though templates H allow the empty password: use of a password counts for the
    lockout, as told in `templates.py`.
    """
    branches = (POLICY_A_SHA384, POLICY_C_SHA384) if ek.policy == POLICY_B_SHA384 else ()
    with tpm.endorsement_session(ek.name_hash, branches) as session:
        yield session


def create_ak(tpm: Tpm, endorsement: Endorsement, kind: str) -> KeyBlob:
    """Return a new AK of a kind of ATTESTATION_TEMPLATES under the EK. It is not loaded."""
    log.info("making key=ak kind=%s", kind)
    with use_of(tpm, endorsement.public) as session:
        private, public = tpm.create(endorsement.handle, session, ATTESTATION_TEMPLATES[kind])
    return KeyBlob(endorsement.kind, public, private)


def kind_of(blob: KeyBlob) -> str:
    """Return the kind of an AK, a name of ATTESTATION_TEMPLATES."""
    key = tpm2.parse_public(blob.public).key
    return "rsa-2048" if isinstance(key, tpm2.RsaKey) else "ecc-p256"


def load_ak(tpm: Tpm, endorsement: Endorsement, blob: KeyBlob) -> int:
    """Return the handle of the loaded AK. Raises TpmError when the blob is of another TPM."""
    with use_of(tpm, endorsement.public) as session:
        return tpm.load(endorsement.handle, session, blob.private, blob.public)


class AttestationKey:
    """An AK that is loaded when it is needed and stays so while the connection to the TPM lives.

    Args:
        endorsement: the EK that it hangs under while somebody keeps that loaded; slow chips take a
            minute to make it again.
    """

    def __init__(self, tpm: Tpm, blob: KeyBlob, endorsement: Optional[Endorsement] = None) -> None:
        self._kept_endorsement = endorsement
        self.blob = blob
        self.public = tpm2.parse_public(blob.public)
        self._tpm = tpm
        self._handle: Optional[int] = None
        self._generation = 0

    def quote(self, qualifying_data: bytes, selection: tpm2.Selection) -> tuple[bytes, bytes]:
        """Return (TPMS_ATTEST, TPMT_SIGNATURE); after a TPM reset the key is loaded again, once.

        Raises:
            Unavailable: the TPM does not answer, or refuses.
        """
        try:
            return self._tpm.quote(self._load(), qualifying_data, selection)
        except TpmError as e:
            if not e.handle_gone:
                raise
            log.info("reloading key=ak reason=%s", "the TPM no longer has it")
            self._handle = None
        return self._tpm.quote(self._load(), qualifying_data, selection)

    def fits(self, attest: bytes, pcrs: tpm2.PcrValues) -> bool:
        """Return whether the quote is one of these values."""
        quote = tpm2.parse_quote(attest)
        try:
            digest = tpm2.pcr_digest(self.public.scheme_hash, quote.selection, pcrs)
        except errors.InvalidMessage:
            return False
        return hmac.compare_digest(digest, quote.pcr_digest)

    def activate(self, credential: bytes, encrypted_secret: bytes) -> bytes:
        """Return the secret that a verifier protected for this AK and the EK of its TPM.

        Raises Unavailable.
        """
        handle = self._load()
        with self._endorsement() as endorsement, use_of(self._tpm, endorsement.public) as session:
            return self._tpm.activate_credential(
                handle, endorsement.handle, session, credential, encrypted_secret
            )

    def unload(self) -> None:
        """Flush the key if it is loaded."""
        if self._handle is not None and self._generation == self._tpm.transport.generation:
            self._tpm.flush(self._handle)
        self._handle = None

    def _endorsement(self) -> contextlib.AbstractContextManager[Endorsement]:
        """Give the EK that the AK hangs under."""
        if self._kept_endorsement is not None:
            return contextlib.nullcontext(self._kept_endorsement)
        return endorsement_key(self._tpm, [self.blob.endorsement])

    def _load(self) -> int:
        transport = self._tpm.transport
        transport.connect()
        if self._handle is None or self._generation != transport.generation:
            if self._kept_endorsement is None:
                self._tpm.flush_leftovers()
            self._handle = self._load_blob()
            self._generation = transport.generation
        return self._handle

    def _load_blob(self) -> int:
        try:
            with self._endorsement() as endorsement:
                return load_ak(self._tpm, endorsement, self.blob)
        except EndorsementChanged as e:
            raise KeyLost(e) from e
        except TpmError as e:
            if e.is_of_another_tpm:
                raise KeyLost(e) from e
            raise
