# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is answered on a host, by its last result and its silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import AttestationResult, Finding, Level
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.enrolment import TPM12_OFF
from ovirt_tcp_plugin.verifier.result_ages import ResultAges
from ovirt_tcp_plugin.verifier.store.results import Result, StoredResult

# Why there is no result.
_NOT_ENROLLED = FindingCode.NOT_ENROLLED.finding("no host is enrolled under this name")
_RECORD_UNREADABLE = FindingCode.RECORD_UNREADABLE.finding(
    "the server's record of this host cannot be read"
)
_NO_ANSWER = FindingCode.NO_ANSWER.finding("the host's agent did not answer")
_RESULT_ENDED = FindingCode.RESULT_ENDED.finding(
    "the host was trusted, but that result ended, and no newer one came"
)
_NOT_ATTESTED = FindingCode.NOT_ATTESTED.finding(
    "the host is enrolled, but has sent no evidence yet"
)


class ResultAnswers:
    """Makes the answers of one server."""

    def __init__(self, options: settings.Appraisal, ages: ResultAges) -> None:
        self._options = options
        self._ages = ages

    def of_names(
        self,
        names: Sequence[str],
        last: Mapping[str, StoredResult],
        silent: Collection[str] = (),
    ) -> list[AttestationResult]:
        """Return an answer for each name that was asked for, in order.

        Args:
            last: the last results of the hosts that are enrolled, by name.
            silent: the hosts that were asked and did not answer.
        """
        answers = []
        for name in names:
            key = key_of(name)
            result = self._answer(key, last, key in silent)
            answers.append(_under_name(result, name))
        return answers

    def describe(self, name: str, result: Result) -> AttestationResult:
        """Return the answer that a result is."""
        return AttestationResult(
            host_name=name,
            level=result.level,
            findings=result.findings,
            age_ms=self._ages.age_ms(name, result),
            lifetime_ms=self._options.lifetime_ms,
            boot_id=result.boot_id,
            tpm_family=result.tpm_family,
        )

    def will_do(self, name: str, result: StoredResult, max_age_ms: Optional[int]) -> bool:
        """Return whether a result is young enough, and within its life."""
        if self._is_off(result):
            return True  # its evidence would be refused
        if not isinstance(result, Result) or max_age_ms is None:
            return False
        age_ms = self._ages.age_ms(name, result)
        return age_ms is not None and age_ms <= min(max_age_ms, self._options.lifetime_ms)

    def _answer(
        self, name: str, last: Mapping[str, StoredResult], silent: bool
    ) -> AttestationResult:
        if name not in last:
            return _unknown(name, _NOT_ENROLLED)
        result = last[name]
        if isinstance(result, errors.InvalidMessage):
            return _unknown(name, _RECORD_UNREADABLE)
        if result is not None and result.level is Level.UNTRUSTED:
            # Silence softens nothing, nor does a family that is not believed any more.
            return self.describe(name, result)
        if self._is_off(result):
            return _unknown(name, FindingCode.TPM12_OFF.finding(TPM12_OFF))
        if silent:
            return AttestationResult(name, Level.TIMEOUT, (_NO_ANSWER,))
        if result is None:
            return _unknown(name, _NOT_ATTESTED)
        answer = self.describe(name, result)
        lifetime_ms = self._options.lifetime_ms
        if result.level is Level.TRUSTED and self._ages.outlived(name, result, lifetime_ms):
            return dataclasses.replace(answer, level=Level.UNKNOWN, findings=(_RESULT_ENDED,))
        return answer

    def _is_off(self, result: StoredResult) -> bool:
        """Return whether a result rests on a TPM that is not believed any more."""
        return isinstance(result, Result) and not self._options.believes(result.tpm_family)


def key_of(name: str) -> str:
    """Return the name that a host asked for as `name` is known by: case does not count.

    Only ASCII's: there are other letters, such as the Kelvin sign, whose lower case is one of
    ASCII.
    """
    return name.lower() if name.isascii() else name


def _under_name(result: AttestationResult, name: str) -> AttestationResult:
    """Return a result under the name that was asked for: clients compare it letter by letter."""
    return result if result.host_name == name else dataclasses.replace(result, host_name=name)


def _unknown(host_name: str, finding: Finding) -> AttestationResult:
    return AttestationResult(host_name, Level.UNKNOWN, (finding,))
