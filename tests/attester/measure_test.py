# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Measuring on a real software TPM; the quote is checked by others' code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import keys, measure, templates
from ovirt_tcp_plugin.attester.tpm import Tpm
from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.messages import eventlog, evidence, tpm2
from tests.attester import quotes

NONCE = bytes(range(32))
DRTM = {"sha256": (17, 18)}


@dataclasses.dataclass
class Bench:
    """A booted host, a connection to its TPM, and its AK."""

    host: LabHost
    tpm: Tpm
    ak: keys.AttestationKey
    sources: measure.Sources

    def measure(self, selection: tpm2.Selection) -> evidence.Evidence:
        return measure.measure(
            self.tpm, self.ak, evidence.Challenge(NONCE, selection, 1000), self.sources
        )


def _bench(host: LabHost, ak_kind: str) -> Bench:
    host.boot()
    tpm = host.connect()
    with keys.endorsement_key(tpm) as endorsement:
        ak = keys.AttestationKey(tpm, keys.create_ak(tpm, endorsement, ak_kind))
    logs = {"txt": host.txt_log_file, "firmware": host.firmware_log_file}
    return Bench(host, tpm, ak, measure.Sources(host.boot_id_file, logs, lambda: 123456))


@pytest.fixture
def bench(make_host: Callable[..., LabHost]) -> Iterator[Bench]:
    made = _bench(make_host(), "ecc-p256")
    yield made
    made.tpm.close()


@pytest.mark.parametrize("ak_kind", list(templates.ATTESTATION_TEMPLATES))
def test_the_quote_is_good_in_the_eyes_of_others(
    ak_kind: str, make_host: Callable[..., LabHost], tmp_path: Path
) -> None:
    bench = _bench(make_host(), ak_kind)

    measured = bench.measure({"sha256": (0, 17, 18), "sha1": (17,)})

    area = bench.ak.blob.public
    quotes.check_signature(area, measured.attest, measured.signature)
    boot_id = bench.host.boot_id_file.read_text().strip()
    bound = (
        b"ovirt-tcp evidence 1\0"
        + NONCE
        + bytes.fromhex(boot_id.replace("-", ""))
        + (123456).to_bytes(8, "big")
    )
    qualifying_data = hashlib.sha256(bound).digest()
    quotes.checkquote(area, measured.attest, measured.signature, qualifying_data, tmp_path)
    quote = tpm2.parse_quote(measured.attest)
    assert quote.qualifying_data == qualifying_data
    assert quote.selection == {"sha256": (0, 17, 18), "sha1": (17,)}
    values = [measured.pcrs["sha256"][i] for i in (0, 17, 18)] + [measured.pcrs["sha1"][17]]
    assert quote.pcr_digest == hashlib.sha256(b"".join(values)).digest()
    with pytest.raises(InvalidSignature):
        quotes.check_signature(area, measured.attest + b"\0", measured.signature)
    bench.tpm.close()


def test_the_evidence_tells_of_the_whole_boot(bench: Bench) -> None:
    measured = bench.measure(DRTM)

    assert measured.nonce == NONCE
    assert measured.boottime_ms == 123456
    assert measured.logs == {
        "txt": bench.host.txt_log_file.read_bytes(),
        "firmware": bench.host.firmware_log_file.read_bytes(),
    }
    assert evidence.decode(json.dumps(evidence.encode(measured)).encode()) == measured


def test_reads_more_values_than_a_tpm_gives_at_once(bench: Bench) -> None:
    measured = bench.measure({"sha256": tuple(range(24)), "sha1": tuple(range(24))})

    assert sorted(measured.pcrs["sha256"]) == sorted(measured.pcrs["sha1"]) == list(range(24))


def test_reports_an_inactive_bank_as_it_is(bench: Bench) -> None:
    measured = bench.measure({"sha384": (17, 18)})

    assert measured.pcrs == {}
    assert tpm2.parse_quote(measured.attest).selection == {"sha384": ()}


def test_reports_that_no_launch_took_place(bench: Bench) -> None:
    bench.tpm.close()
    bench.host.boot(measured_launch=False)

    measured = bench.measure(DRTM)

    assert measured.pcrs == {"sha256": {17: b"\xff" * 32, 18: b"\xff" * 32}}
    assert list(measured.logs) == ["firmware"]


class Restless(Tpm):
    """A TPM on which something else extends a PCR at each reading and the next `times` quotes."""

    times = 0

    def quote(
        self, ak: int, qualifying_data: bytes, selection: tpm2.Selection
    ) -> tuple[bytes, bytes]:
        quoted = super().quote(ak, qualifying_data, selection)
        if self.times:
            self.times -= 1
            launch.extend(self, eventlog.Event(16, 0, {"sha256": bytes(32)}, b""))
        return quoted

    def read_pcrs(self, selection: tpm2.Selection) -> tpm2.PcrValues:
        values = super().read_pcrs(selection)
        if self.times:
            launch.extend(self, eventlog.Event(16, 0, {"sha256": bytes(32)}, b""))
        return values


def _restless(bench: Bench, times: int) -> Bench:
    tpm = Restless(bench.tpm.transport)
    tpm.times = times
    return Bench(bench.host, tpm, keys.AttestationKey(tpm, bench.ak.blob), bench.sources)


def test_quotes_again_until_values_and_quote_fit(bench: Bench) -> None:
    measured = _restless(bench, measure.MAX_TRIES - 1).measure({"sha256": (16,)})

    quote = tpm2.parse_quote(measured.attest)
    assert quote.pcr_digest == hashlib.sha256(measured.pcrs["sha256"][16]).digest()


def test_gives_up_on_pcrs_that_never_hold_still(bench: Bench) -> None:
    with pytest.raises(errors.Unavailable, match="the PCRs changed during each of 8 quotes"):
        _restless(bench, 100).measure({"sha256": (16,)})


@pytest.mark.parametrize(
    "content", ["", "not a boot id\n", "0" * 36, "F" * 8 + "-0000-0000-0000-000000000000"]
)
def test_refuses_a_file_without_boot_id(content: str, tmp_path: Path) -> None:
    path = tmp_path / "boot_id"
    path.write_text(content)

    with pytest.raises(errors.Unavailable, match="the file holds no boot id"):
        measure.read_boot_id(path)


def test_reads_the_running_kernels_boot_id() -> None:
    assert len(measure.read_boot_id(Path("/proc/sys/kernel/random/boot_id"))) == 36


def test_says_which_boot_id_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        errors.Unavailable, match="boot_id is unavailable: No such file or directory"
    ):
        measure.read_boot_id(tmp_path / "boot_id")


def test_an_absent_log_is_no_log(tmp_path: Path) -> None:
    assert measure.read_log("txt", tmp_path / "absent", 100) is None


def test_why_a_log_is_absent_is_told_in_the_hooks_own_words(tmp_path: Path) -> None:
    logs = {"txt": tmp_path / "txt", "firmware": tmp_path / "firmware"}
    sources = measure.Sources(tmp_path / "boot_id", logs)
    (tmp_path / "firmware").write_bytes(b"log")
    (tmp_path / "firmware.absent").write_text("absent\nof an earlier try\n")
    (tmp_path / "txt.absent").write_text("locked_down\nthe kernel is locked down\n")

    absences = measure.read_absences(sources, ["firmware"])

    assert absences == {"txt": evidence.Absence("locked_down", "the kernel is locked down")}


@pytest.mark.parametrize("content", [b"", b"\xff" * 5000, b"a" * 5000 + b"\n\x1b[2J", b"\n\n"])
def test_any_word_of_the_hook_fits_into_evidence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "txt.absent").write_bytes(content)
    sources = measure.Sources(tmp_path / "boot_id", {"txt": tmp_path / "txt"})

    absence = measure.read_absences(sources, {})["txt"]

    assert len(absence.reason) <= evidence.MAX_REASON_LENGTH
    assert len(absence.note) <= evidence.MAX_NOTE_LENGTH
    assert absence.note.isprintable()


def test_without_a_word_of_the_hook_nothing_is_said(tmp_path: Path) -> None:
    sources = measure.Sources(tmp_path / "boot_id", {"txt": tmp_path / "txt"})
    assert measure.read_absences(sources, {}) == {}


def test_an_unreadable_log_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert measure.read_log("txt", tmp_path, 100) is None
    assert "unreadable log=txt" in caplog.text


def test_a_log_of_2_mib_is_sent(bench: Bench) -> None:
    bench.host.firmware_log_file.write_bytes(bytes(2 * 1024 * 1024))

    measured = bench.measure(DRTM)

    assert len(measured.logs["firmware"]) == 2 * 1024 * 1024
    assert not measured.oversized_logs


def test_a_log_that_is_too_long_beside_the_other_is_told_with_its_size(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.host.firmware_log_file.write_bytes(bytes(evidence.MAX_LOG_SIZE))

    measured = bench.measure(DRTM)

    assert list(measured.logs) == ["txt"]
    assert measured.oversized_logs == {"firmware": evidence.MAX_LOG_SIZE}
    assert f"oversized log=firmware path={bench.host.firmware_log_file} size=4194304" in caplog.text
    assert evidence.decode(json.dumps(evidence.encode(measured)).encode()) == measured


def test_a_server_of_an_older_release_gets_no_member_that_it_would_refuse(bench: Bench) -> None:
    older = evidence.encode_challenge(evidence.Challenge(NONCE, DRTM, 1000))
    del older["max_log_size"]
    bench.host.firmware_log_file.write_bytes(bytes(evidence.OLDER_MAX_LOG_SIZE))

    measured = measure.measure(bench.tpm, bench.ak, evidence.decode_challenge(older), bench.sources)

    assert list(measured.logs) == ["txt"]
    assert "oversized_logs" not in evidence.encode(measured)


def test_a_log_of_which_only_the_length_was_handed_over_is_oversized(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    os.truncate(path, 50 * 1024 * 1024)

    with pytest.raises(measure.OversizedLogError) as raised:
        measure.read_log("firmware", path, evidence.MAX_LOG_SIZE)

    assert raised.value.size == 50 * 1024 * 1024


def test_a_log_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(100))
    assert measure.read_log("txt", path, 100) == bytes(100)

    with pytest.raises(measure.OversizedLogError):
        measure.read_log("txt", path, 99)
