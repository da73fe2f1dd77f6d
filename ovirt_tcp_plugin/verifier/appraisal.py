# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain step 3: is this Evidence genuine, and does it tell of a good boot?

The complete list of checks. The numbers are stable: findings, tests and documents use them. What a TPM 1.2 changes is
in `quote12.py`.

 (0) the report is well formed and within bounds (`messages/evidence.py`, `messages/tpm2.py`)
 (1) the host is enrolled, and its AK is bound to an endorsed EK (`endorsement.py`, at enrolment)
 (2) the attest structure was made by a TPM and is a quote
 (3) its signature is by that AK, with the AK's scheme and a hash other than SHA-1
 (4) its qualifying data is the nonce issued to this host, unused and not expired, with boot id and boot time
 (5) reset and restart counters did not go back, and they agree with the boot id
 (6) the PCR values given hash to the quoted digest and cover all required PCRs
 (7) the event log replays to those PCRs
 (8) each required PCR equals the reference values, as a whole or step by step (`judgement.py`)
 (9) the signed PCR selection is the one that was asked for
(10) the quote's qualified signer is the AK under the endorsed EK

(0)-(4) and (10) establish authenticity: the first failure ends the appraisal and the evidence is *discarded*, since
anybody may have sent it. After them the host itself is speaking, and (5)-(9) report every failure as *untrusted*.

Not established here: that the nonce is used once (`store/rounds.py` takes each back once), that the EK's certificate is good
(enrolment), and anything that happened after the boot that the PCRs cover.
"""

from __future__ import annotations

import dataclasses
import functools
import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar, Optional, Union

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import components, eventlog, evidence, public_keys, tpm2, tpm12
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier import quote12
from ovirt_tcp_plugin.verifier.judgement import Criteria, Measured, conclude, never_launched

# SHA-1 is absent: collisions are affordable, and no TPM 2.0 needs it (check 3).
SIGNATURE_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclasses.dataclass(frozen=True)
class EnrolledHost:
    """The identity that enrolment bound to a host name: EK and AK of one TPM 2.0."""

    name: str
    ek: tpm2.Public
    ak: tpm2.Public
    family: ClassVar[str] = "2.0"
    bank: ClassVar[str] = "sha256"

    @functools.cached_property
    def verifying_key(self) -> public_keys.VerifyingKey:
        """The AK for `cryptography`. Raises InvalidMessage as `public_keys.load` does."""
        return public_keys.load(self.ak)

    @functools.cached_property
    def qualified_signer(self) -> bytes:
        """What the AK's quotes name as their signer."""
        return tpm2.qualified_name(self.ek, self.ak)

    def signed_part(self, qualifying_data: bytes) -> bytes:
        """Return what of the qualifying data a quote of this TPM holds."""
        return qualifying_data

    def pcr_digest(self, selection: tpm2.Selection, values: tpm2.PcrValues) -> bytes:
        """Return the digest that a quote of these values has: in the hash of the AK's scheme (Part 3, 18.4).

        Raises:
            InvalidMessage: a selected value is missing.
        """
        return tpm2.pcr_digest(self.ak.scheme_hash, selection, values)


@dataclasses.dataclass(frozen=True)
class EnrolledHost12:
    """The same of a TPM 1.2, whose AK is an identity key."""

    name: str
    ek: tpm12.PublicKey
    ak: tpm12.PublicKey
    family: ClassVar[str] = "1.2"
    bank: ClassVar[str] = tpm12.BANK

    def signed_part(self, qualifying_data: bytes) -> bytes:
        """Return what of the qualifying data a quote of this TPM holds."""
        return tpm12.external_data(qualifying_data)

    def pcr_digest(self, selection: tpm2.Selection, values: tpm2.PcrValues) -> bytes:
        """Return the digest that a quote of these values has. Raises InvalidMessage when one is missing."""
        return tpm12.pcr_digest(selection, values)


AnyHost = Union[EnrolledHost, EnrolledHost12]
AnyQuote = Union[tpm2.Quote, tpm12.Quote]


@dataclasses.dataclass(frozen=True)
class IssuedNonce:
    """A challenge as the verifier remembers it. Times are the verifier's CLOCK_BOOTTIME in milliseconds."""

    challenge: evidence.Challenge
    host_name: str
    born_ms: int
    end_ms: int


@dataclasses.dataclass(frozen=True)
class Boot:
    """Where a host's TPM stood at its last authentic quote (check 5); all zeros for a TPM 1.2, which counts nothing."""

    boot_id: str
    reset_count: int
    restart_count: int
    clock: int


@dataclasses.dataclass(frozen=True)
class Discarded:
    """The evidence proves nothing about the host; `finding` is the first failed check of authenticity."""

    finding: Finding


@dataclasses.dataclass(frozen=True)
class Appraised:
    """The host itself has spoken.

    Attributes:
        level: trusted, untrusted, or unknown when no reference values are chosen.
        findings: every failed check.
        boot: the counters of this quote.
        measured: what check (8) went by, and will again when the reference values change.
    """

    level: Level
    findings: tuple[Finding, ...]
    boot: Boot
    measured: Measured


def appraise(
    reported: evidence.Evidence,
    host: Optional[AnyHost],
    issued: Optional[IssuedNonce],
    previous: Optional[Boot],
    required: tpm2.Selection,
    criteria: Criteria,
    now_ms: int,
) -> Union[Discarded, Appraised]:
    """Return what `reported` proves about `host` at `now_ms`.

    Args:
        reported: the decoded, untrusted evidence: check (0) is done.
        host: the identity enrolled under the sender's name, None if there is none.
        issued: what `nonces` had under the evidence's nonce, None if nothing.
        previous: the counters of the last authentic quote, None if there was none in this enrolment.
        required: the one bank and the PCRs that the host's profile demands.
        criteria: the reference values.

    Raises:
        ValueError: `required` names no PCR; an empty set is a fault of configuration, never a pass.
    """
    if len(required) != 1 or not all(required.values()):
        raise ValueError("required PCRs must be a non-empty set in one bank")
    if host is None:  # (1)
        return Discarded(Finding(1, "not_enrolled", "no host is enrolled under this name"))
    quote = authenticate(reported, host, issued, now_ms)
    if isinstance(quote, Finding):
        return Discarded(quote)
    boot, counted = _boot(reported.boot_id, quote, previous)
    selection = quote.selection if isinstance(quote, tpm2.Quote) else quote.selection(reported.pcrs)
    findings = [*counted, *_check_selection(selection, issued)]
    values, unproven = _check_values(quote.pcr_digest, selection, host, reported.pcrs, required)
    findings += unproven
    steps, unlogged = _check_log(reported.logs, values, required)
    findings += unlogged
    ((bank, _),) = required.items()
    measured = Measured({index: value.hex() for index, value in values.items()}, steps, bank)
    differing = criteria.judge(measured, host.name, required)  # (8)
    level, told = conclude(findings, differing, criteria.chosen_for(host.name))
    return Appraised(level, told, boot, measured)


def logs_for(required: tpm2.Selection) -> Collection[str]:
    """Return the kinds of event logs that check (7) reads to prove these PCRs."""
    ((_, indices),) = required.items()
    return [kind for kind in evidence.LOGS if _told_by(kind, indices)]


def authenticate(
    reported: evidence.Evidence, host: AnyHost, issued: Optional[IssuedNonce], now_ms: int
) -> Union[AnyQuote, Finding]:
    """Return the quote if it is the host's own answer to the nonce, else the first failed check."""
    quote = check_quote(reported.attest, reported.signature, host)
    if isinstance(quote, Finding):
        return quote
    if issued is None or not hmac.compare_digest(issued.challenge.nonce, reported.nonce):  # (4)
        return Finding(4, "nonce_unknown", "the nonce was never issued, or was used before")
    if issued.host_name != host.name:
        return Finding(4, "nonce_foreign", "the nonce was issued to another host")
    if not issued.born_ms <= now_ms < issued.end_ms:
        return Finding(4, "nonce_expired", "the answer came after the nonce's end")
    bound = evidence.qualifying_data(reported.nonce, reported.boot_id, reported.boottime_ms)
    if not hmac.compare_digest(quote.qualifying_data, host.signed_part(bound)):
        return Finding(
            4, "nonce_differs", "the quote was not made for this nonce, boot id and boot time"
        )
    return quote


def check_quote(attest: bytes, signature: bytes, host: AnyHost) -> Union[AnyQuote, Finding]:
    """Return the quote in `attest` if the host's AK made it: checks (3), (2) and (10), in this order.

    The signature comes first, over the exact bytes, so that no field is looked at before it is genuine. The family is
    the one that enrolled, whatever the bytes look like.
    """
    if isinstance(host, EnrolledHost12):
        return quote12.check_quote(attest, signature, host.ak)
    try:
        parsed_signature = tpm2.parse_signature(signature)
    except errors.InvalidMessage as e:
        return Finding(0, "malformed", str(e))
    if not verify(host, attest, parsed_signature):  # (3)
        return Finding(3, "bad_signature", "the quote is not signed by the host's AK")
    try:
        quote = tpm2.parse_quote(attest)  # (2)
    except errors.InvalidMessage as e:
        return Finding(2, "not_a_quote", str(e))
    if not hmac.compare_digest(quote.qualified_signer, host.qualified_signer):  # (10)
        expected, seen = host.qualified_signer.hex(), quote.qualified_signer.hex()
        return Finding(
            10, "wrong_signer", "the AK does not hang under the host's EK", expected, seen
        )
    return quote


def verify(host: EnrolledHost, message: bytes, signature: tpm2.Signature) -> bool:
    """Return whether `signature` over `message` is by the host's AK, in the one scheme and hash that it is made for."""
    algorithm = SIGNATURE_HASHES.get(signature.hash_name)
    if algorithm is None or signature.hash_name != host.ak.scheme_hash:
        return False
    public = host.verifying_key
    try:
        if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(
            signature, tpm2.EcdsaSignature
        ):
            public.verify(
                encode_dss_signature(signature.r, signature.s), message, ec.ECDSA(algorithm)
            )
            return True
        if isinstance(public, rsa.RSAPublicKey) and isinstance(signature, tpm2.RsaSignature):
            if signature.scheme != host.ak.scheme:
                return False
            public.verify(
                signature.value, message, _padding(signature.scheme, algorithm), algorithm
            )
            return True
    except InvalidSignature:
        return False
    return False


def _padding(scheme: int, algorithm: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if scheme == tpm2.ALG_RSASSA:
        return padding.PKCS1v15()
    # Part 1, B.7: the salt is as long as the hash, or as long as the key allows in older TPMs.
    return padding.PSS(mgf=padding.MGF1(algorithm), salt_length=padding.PSS.AUTO)


def _boot(
    boot_id: str, quote: AnyQuote, previous: Optional[Boot]
) -> tuple[Boot, Iterable[Finding]]:
    """Return where the TPM stands, and what is wrong with that."""
    if isinstance(quote, tpm12.Quote):
        return Boot(boot_id, 0, 0, 0), ()
    boot = Boot(boot_id, quote.reset_count, quote.restart_count, quote.clock)
    return boot, _check_counters(boot, previous)


def _check_counters(boot: Boot, previous: Optional[Boot]) -> Iterable[Finding]:  # (5)
    """A TPM's counters only grow; a new kernel means a TPM reset, and a TPM reset means a new kernel."""
    if previous is None:
        return
    now, then = (
        (boot.reset_count, boot.restart_count),
        (previous.reset_count, previous.restart_count),
    )
    seen, expected = (
        f"reset {now[0]}, restart {now[1]}",
        f"at least reset {then[0]}, restart {then[1]}",
    )
    if now < then:
        yield Finding(
            5, "counters_back", "the TPM's reset or restart counter went back", expected, seen
        )
    elif now == then and boot.clock < previous.clock:
        yield Finding(
            5,
            "clock_back",
            "the TPM's clock went back within one boot",
            str(previous.clock),
            str(boot.clock),
        )
    # A resume moves the restart counter, and kexec may follow it; a kernel that really booted comes with a reset.
    if now[0] == then[0] and boot.boot_id != previous.boot_id:
        yield Finding(
            5,
            "kernel_without_reset",
            "another kernel runs, but the TPM was not reset (kexec): reboot the host",
        )
    if now[0] > then[0] and boot.boot_id == previous.boot_id:
        yield Finding(
            5, "reset_without_boot", "the TPM was reset under a running kernel: reboot the host"
        )


def _check_selection(
    selection: tpm2.Selection, issued: Optional[IssuedNonce]
) -> Iterable[Finding]:  # (9)
    asked = issued.challenge.selection if issued else {}
    if dict(selection) != dict(asked):
        yield Finding(
            9,
            "selection_differs",
            "the TPM signed for other PCRs than it was asked for",
            tpm2.describe_selection(asked),
            tpm2.describe_selection(selection),
        )


def _check_values(  # (6)
    quoted: bytes,
    selection: tpm2.Selection,
    host: AnyHost,
    given: tpm2.PcrValues,
    required: tpm2.Selection,
) -> tuple[Mapping[int, bytes], list[Finding]]:
    """Return the required PCR values that the signature covers. Only the *signed* selection names PCRs.

    Args:
        quoted: the digest that the TPM signed.
    """
    ((bank, indices),) = required.items()
    try:
        digest = host.pcr_digest(selection, given)
    except errors.InvalidMessage as e:
        return {}, [Finding(6, "values_missing", str(e))]
    if not hmac.compare_digest(digest, quoted):
        return {}, [
            Finding(
                6,
                "values_differ",
                "the PCR values given are not those that the TPM signed",
                quoted.hex(),
                digest.hex(),
            )
        ]
    signed = selection.get(bank, ())
    proven = {index: given[bank][index] for index in indices if index in signed}
    missing = [index for index in indices if index not in proven]
    if missing:
        return proven, [
            Finding(
                6,
                "pcr_not_quoted",
                f"PCR {_listed(missing)} of bank {bank} is required, but was not quoted",
            )
        ]
    return proven, []


def _check_log(  # (7)
    logs: Mapping[str, bytes], values: Mapping[int, bytes], required: tpm2.Selection
) -> tuple[tuple[components.Step, ...], list[Finding]]:
    """Return the steps of the PCRs to which the logs replay, and what is wrong with the logs."""
    ((bank, indices),) = required.items()
    try:
        events = [event for kind in evidence.LOGS for event in _events(kind, logs, indices)]
    except errors.InvalidMessage as e:
        return (), [Finding(7, "log_malformed", str(e))]
    told = {event.pcr for event in events if bank in event.digests}
    untold = [index for index in indices if index not in told]
    if len(untold) == len(indices):
        return (), [_missing(_listed(untold), bank)]
    replayed = eventlog.replay(events, bank, values)
    good = [index for index, value in values.items() if hmac.compare_digest(replayed[index], value)]
    bad = [index for index in values if index not in good]
    findings = [
        _replay_finding(index, replayed[index], values[index])
        if index in told
        else _missing(str(index), bank)
        for index in bad
    ]
    return components.steps(events, bank, good), findings


def _events(
    kind: str, logs: Mapping[str, bytes], indices: Iterable[int]
) -> Sequence[eventlog.Event]:
    """Return the events of one log: D-RTM PCRs are told by the TXT log, the others by the firmware's.

    A log that speaks of no required PCR is not read: its quirks are nobody's business here.
    """
    own = _told_by(kind, indices)
    if kind not in logs or not own:
        return ()
    # What a launch was is told by the events of all D-RTM PCRs together.
    wanted = frozenset(eventlog.DRTM_PCRS if kind == "txt" else own)
    return [
        event for event in eventlog.parse(logs[kind], padded=kind == "txt") if event.pcr in wanted
    ]


def _told_by(kind: str, indices: Iterable[int]) -> list[int]:
    return [index for index in indices if (index in eventlog.DRTM_PCRS) is (kind == "txt")]


def _missing(listed: str, bank: str) -> Finding:
    return Finding(
        7, "log_missing", f"no event log tells in bank {bank} how PCR {listed} came about"
    )


def _replay_finding(index: int, replayed: bytes, quoted: bytes) -> Finding:
    if never_launched(index, quoted):
        text = (
            f"the event log tells of a measured launch, but PCR {index} shows that none took place"
        )
        return Finding(7, "log_without_launch", text, replayed.hex(), quoted.hex())
    text = f"the event log does not replay to PCR {index}: it is not the log of what was booted"
    return Finding(7, "log_differs", text, replayed.hex(), quoted.hex())


def _listed(indices: Iterable[int]) -> str:
    return ", ".join(str(index) for index in indices)
