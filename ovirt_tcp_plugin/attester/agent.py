# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The agent's loop: ask the attestation server for a challenge, measure, report, keep what it said.

It never stops by itself: a server or TPM that is away is tried again with growing pauses, and a
host that cannot report simply grows old in the server's eyes.
"""

from __future__ import annotations

import logging
import math
import random
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

from ovirt_tcp_plugin import backoff, errors
from ovirt_tcp_plugin.attester import measure
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.credentials import Credentials
from ovirt_tcp_plugin.attester.hook_files import HookFiles, summarize
from ovirt_tcp_plugin.attester.stop_flag import StopFlag
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.messages import ear, evidence, json_fields, result
from ovirt_tcp_plugin.messages.findings import FindingCode

log = logging.getLogger("attester.agent")

# The server holds the question open this long. Of ten thousand hosts, shorter questions are most of
# its work; a proxy in between cuts a connection after 50 s or later.
WAIT_MS = 45_000
RETRY_FIRST_MS = 1_000
# Not even a server that answers "nothing to do" at once gets more than four questions a second.
PACE_S = 0.25
# How often the agent looks after its certificate and authorities, and after a failure.
CARE_INTERVAL_S = 3600.0
CARE_AGAIN_S = 300.0
# Connections that the server cuts in a row. One that no longer takes our certificate closes them,
# and need not say why; one that restarts cuts one.
CUT_BEFORE_CERTIFYING = 3
# Where a measured launch is seen.
LAUNCH_PCRS = (17, 18, 19)


class _Interrupted(Exception):
    """`offer` or `stop` ended a wait for the server."""


class _Reply(NamedTuple):
    """The server's result on this host, and the signed verdict; empty if the server gives none."""

    result: result.AttestationResult
    signed: str


class Agent:
    """An enrolled host.

    Args:
        hook_files: where the hooks of this host look.
        retry_most_s: longest pause between two tries.
        stop_flag: ends `run`, and its pauses.
        draw: a number from 0 to 1, for the jitter that keeps a thousand hosts from coming back at
            once.
        credentials: renews what the agent shows and believes; None to leave it as it is.
    """

    def __init__(
        self,
        host_name: str,
        state: AgentState,
        tpm: measure.PcrReader,
        ak: measure.QuotingKey,
        client: VerifierClient,
        sources: measure.Sources,
        hook_files: HookFiles,
        retry_most_s: float,
        stop_flag: StopFlag,
        draw: Callable[[], float] = random.random,
        credentials: Optional[Credentials] = None,
    ) -> None:
        self._host_name = host_name
        self._state = state
        self._tpm = tpm
        self._ak = ak
        self._client = client
        self._sources = sources
        self._hook_files = hook_files
        self._retry_most_ms = math.ceil(retry_most_s * 1000)
        self._stop_flag = stop_flag
        self._draw = draw
        self._credentials = credentials
        self._care_at_s = 0.0
        self._cut = 0
        self._failures = 0
        self._ask_next = False
        # A host that just started has no verdict, or an old one.
        self._offering = True
        # Whether the logs are sent though the server offers to know them: it did not.
        self._sending_logs = False
        # Whether the wait for the server may be ended by an offer.
        self._waiting = False
        self._interrupted = False
        self._status = dict(_last_status(state))
        self._status_is_kept = True

    def run(self) -> None:
        """Report until `stop`."""
        while not self._stop_flag.is_set:
            self.step()

    def offer(self) -> None:
        """Report as soon as may be, though nobody asks.

        For signal handlers: where the agent waits, the wait ends.
        """
        self._offering = True
        if self._waiting:
            self._interrupt()

    def stop(self) -> None:
        """Have `run` return as soon as may be.

        For signal handlers: what waits for an answer or pauses ends at once. What connects, or
        waits for the TPM, ends within its own time limit.
        """
        self._stop_flag.set()
        self._interrupt()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._client.interrupt()

    def step(self) -> None:
        """Do one round, and the pause that follows it."""
        started = time.monotonic()
        try:
            self._round()
        except errors.Error as e:
            # What `stop` broke off is no failure.
            if not self._stop_flag.is_set:
                self._failed(e)
        except _Interrupted:
            if not self._stop_flag.is_set:
                log.info("woken")
        else:
            self._failures = 0
            rest_s = PACE_S - (time.monotonic() - started)
            if rest_s > 0:
                self._stop_flag.pause(rest_s)

    def _round(self) -> None:
        challenge = self._next_challenge()
        self._cut = 0
        if challenge is None:
            self._recovered()
        else:
            self._report(challenge)
        self._care()

    def _report(self, challenge: evidence.Challenge) -> None:
        measured = measure.measure(self._tpm, self._ak, challenge, self._sources)
        kinds = ",".join(sorted(measured.logs)) or "none"
        log.info("measured logs=%s boot_id=%s", kinds, measured.boot_id)
        known = {} if self._sending_logs else challenge.known_logs
        report = evidence.name_known_logs(measured, known)
        try:
            answer = self._post("/v1/evidence", evidence.encode(report))
        except errors.Refused as e:
            if e.code == FindingCode.LOG_UNKNOWN.code:
                self._sending_logs = True
                self._offering = True
            raise
        reply = _decode_reply(answer)
        self._offering = False
        self._sending_logs = False
        level = reply.result.level.value
        codes = ",".join(finding.code for finding in reply.result.findings)
        server = self._client.current
        log.info("appraised server=%s level=%s findings=%s", server, level, codes)
        self._hand_over(challenge, measured, reply)
        self._keep_result(measured, reply.result)

    def _keep_result(
        self, measured: evidence.Evidence, appraised: result.AttestationResult
    ) -> None:
        self._keep_status(
            level=appraised.level.value,
            findings=result.encode_findings(appraised.findings),
            server=self._client.current,
            boot_id=measured.boot_id,
            boottime_ms=measured.boottime_ms,
            lifetime_ms=appraised.lifetime_ms,
            time=int(time.time()),
            error="",
        )

    def _next_challenge(self) -> Optional[evidence.Challenge]:
        """Return the server's challenge, None if nobody wants this host's evidence."""
        boot_id = measure.read_boot_id(self._sources.boot_id)
        question = {"wait_ms": WAIT_MS, "boot_id": boot_id, "offer": self._offering}
        self._waiting = not self._offering
        try:
            reply = self._post("/v1/challenge", question, WAIT_MS / 1000)
        finally:
            self._waiting = False
            self._resume()
        if reply is None:
            return None
        challenge = evidence.decode_challenge(reply)
        if len(challenge.selection) != 1:
            raise errors.InvalidMessage("challenge", "it does not name one PCR bank")
        return challenge

    def _resume(self) -> None:
        """Let the next exchange run, although an offer ended the last one; not after `stop`."""
        self._interrupted = False
        self._client.resume()
        if self._stop_flag.is_set:
            self._interrupt()

    def _hand_over(
        self, challenge: evidence.Challenge, measured: evidence.Evidence, reply: _Reply
    ) -> None:
        """Leave verdict and summary for the hooks.

        Without them the gate closes when the last verdict ends.
        """
        (bank,) = challenge.selection
        try:
            if reply.signed:
                self._hook_files.keep_verdict(reply.signed)
            launch = self._tpm.read_pcrs({bank: LAUNCH_PCRS}).get(bank, {})
            self._hook_files.keep_summary(summarize(measured, reply.result, bank, launch))
        except errors.Error as e:
            log.warning("not handed over reason=%s", e)

    def _care(self) -> None:
        """Renew certificate and authorities in time; a failure waits, and never ends reports."""
        now_s = time.monotonic()
        if self._credentials is None or now_s < self._care_at_s:
            return
        self._care_at_s = now_s + CARE_INTERVAL_S
        try:
            self._credentials.renew()
        except errors.Error as e:
            self._care_at_s = now_s + CARE_AGAIN_S
            if not self._stop_flag.is_set:
                log.warning("not renewed reason=%s", e)

    def _certify_again(self, error: errors.Error) -> bool:
        """Get another client certificate if the server does not take ours.

        Return whether there is one now.
        """
        credentials = self._credentials
        if credentials is None or not self._is_stranger(credentials, error):
            return False
        try:
            credentials.certify_again()
        except errors.Error as e:
            log.warning("not certified again reason=%s", e)
            return False
        self._cut = 0
        return True

    def _is_stranger(self, credentials: Credentials, error: errors.Error) -> bool:
        """Return whether the server seems not to know us by our certificate."""
        if isinstance(error, errors.Refused):
            return error.code == "unauthenticated"
        if not isinstance(error, errors.Unavailable):
            return False
        if not credentials.is_good():
            return True
        if isinstance(error.__cause__, ConnectionRefusedError):
            self._cut = 0
        elif isinstance(error.__cause__, (ssl.SSLError, ConnectionError)):
            self._cut += 1
        return self._cut >= CUT_BEFORE_CERTIFYING

    def _post(self, path: str, message: Mapping[str, Any], wait_s: float = 0.0) -> Optional[object]:
        try:
            return self._client.post(path, message, wait_s)
        except (errors.Unavailable, errors.InvalidMessage) as e:
            if self._interrupted:
                raise _Interrupted from e
            self._ask_next = not self._client.fail_over()
            raise

    def _failed(self, error: errors.Error) -> None:
        """Say why, once, and pause; the next server is asked without a pause."""
        if self._status.get("error") != str(error):
            log.warning("failed reason=%s", error)
            self._keep_status(error=str(error))
        if self._certify_again(error):
            self._failures = 0
            return
        if self._ask_next:
            self._ask_next = False
            return
        longest_ms = backoff.pause_ms(RETRY_FIRST_MS, self._retry_most_ms, self._failures)
        self._failures += 1
        jitter = 0.5 + self._draw() / 2
        self._stop_flag.pause(longest_ms / 1000 * jitter)

    def _recovered(self) -> None:
        if self._status.get("error"):
            log.info("recovered server=%s", self._client.current)
            self._keep_status(error="")
        elif not self._status_is_kept:
            self._keep_status()

    def _keep_status(self, **changed: object) -> None:
        self._status.update(changed)
        try:
            self._state.keep_status(self._status)
            self._status_is_kept = True
        except errors.Error as e:
            self._status_is_kept = False
            # Only people read it: a full disk does not keep the host from reporting.
            log.warning("status not kept reason=%s", e)


def _last_status(state: AgentState) -> Mapping[str, Any]:
    try:
        return state.load_status() or {}
    except errors.InvalidConfig as e:
        log.warning("status unreadable reason=%s", e)
        return {}


def _decode_reply(untrusted: Optional[object]) -> _Reply:
    """Return the server's reply to evidence.

    Age and lifetime are the broker's business and may be absent, as the verdict may.
    """
    absent = {
        "host_name": "",
        "age_ms": None,
        "lifetime_ms": 0,
        "boot_id": "",
        "tpm_family": "",
        "verdict": "",
    }
    members = {**absent, **json_fields.members(untrusted, "attestation result")}
    signed = json_fields.text(members, "verdict", ear.MAX_SIZE)
    return _Reply(result.decode(members), signed)
