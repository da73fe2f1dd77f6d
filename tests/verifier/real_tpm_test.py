# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The appraisal of software TPMs that went through a simulated TXT launch.

With every lie that a host can tell.

`appraisal_test.py` breaks each check alone with a TPM whose keys the test holds; this proves that
real quotes, real PCRs and real logs meet the same checks.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Callable

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import keys
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.messages import components, eventlog, evidence, reference_values, tpm2
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier import endorsement
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised, Discarded, appraise
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from tests.conftest import TpmPool
from tests.verifier.quoting import HOUR_MS, NOW, REQUIRED, Quoting, allocate

MakeHost = Callable[..., LabHost]


def issue(host: str = "host-1", nonce: bytes = b"n" * 32) -> IssuedNonce:
    return IssuedNonce(evidence.Challenge(nonce, REQUIRED, 1000), host, NOW - 10, NOW + 1000)


@pytest.fixture
def host(make_host: MakeHost) -> LabHost:
    made = make_host("host-1")
    made.boot()
    return made


@pytest.fixture
def quoting(host: LabHost) -> Quoting:
    return Quoting(host)


@pytest.fixture(scope="module")
def golden(tpm_pool: TpmPool) -> Criteria:
    """What a good boot of the lab's images must give, computed from the images alone."""
    told = components.steps(launch.events(tpm_pool.images), "sha256", (17, 18))
    return Criteria("sha256", [reference_values.from_boot("golden", "sha256", told)])


def judge(
    quoting: Quoting,
    golden: Criteria,
    reported: evidence.Evidence,
    previous: BootCounters | None = None,
) -> Discarded | Appraised:
    return appraise(reported, quoting.identity, issue(), previous, None, REQUIRED, golden, NOW)


def codes(outcome: Discarded | Appraised) -> list[str]:
    assert isinstance(outcome, Appraised)
    return [finding.code for finding in outcome.findings]


class TestUntrusted:
    def test_tampered_tboot(self, host: LabHost, golden: Criteria) -> None:
        host.reboot(launch.tamper_tboot(host.images, host.directory))
        quoting = Quoting(host)
        outcome = judge(quoting, golden, quoting.report(issue()))
        assert codes(outcome) == ["mle_differs"]

    def test_tampered_kernel(self, host: LabHost, golden: Criteria) -> None:
        host.reboot(launch.tamper_kernel(host.images, host.directory))
        quoting = Quoting(host)
        outcome = judge(quoting, golden, quoting.report(issue()))
        assert codes(outcome) == ["kernel_differs"]

    def test_tampered_kernel_under_a_forged_log(self, host: LabHost, golden: Criteria) -> None:
        host.reboot(launch.tamper_kernel(host.images, host.directory), forged_log=host.good_log())
        quoting = Quoting(host)
        assert codes(judge(quoting, golden, quoting.report(issue()))) == [
            "log_differs",
            "steps_unproven",
        ]

    def test_no_launch_under_a_good_log(self, host: LabHost, golden: Criteria) -> None:
        host.reboot(measured_launch=False, forged_log=host.good_log())
        quoting = Quoting(host)
        found = codes(judge(quoting, golden, quoting.report(issue())))
        assert found == ["no_launch", "no_launch", "log_without_launch", "log_without_launch"]

    def test_no_launch_and_no_log(self, host: LabHost, golden: Criteria) -> None:
        host.reboot(measured_launch=False)
        quoting = Quoting(host)
        assert codes(judge(quoting, golden, quoting.report(issue()))) == [
            "no_launch",
            "no_launch",
            "log_missing",
        ]

    def test_launch_without_a_log(self, host: LabHost, golden: Criteria) -> None:
        host.reboot(write_log=False)
        quoting = Quoting(host)
        assert codes(judge(quoting, golden, quoting.report(issue()))) == [
            "log_missing",
            "steps_unproven",
            "steps_unproven",
        ]

    def test_truncated_log(self, host: LabHost, golden: Criteria) -> None:
        host.txt_log_file.write_bytes(launch.truncate(host.good_log()))
        quoting = Quoting(host)
        found = codes(judge(quoting, golden, quoting.report(issue())))
        assert found == ["log_malformed", "steps_unproven", "steps_unproven"]

    def test_pcr_16_extended_with_the_launch_and_relabelled_as_17(
        self, host: LabHost, golden: Criteria
    ) -> None:
        host.reboot(measured_launch=False, forged_log=host.good_log())
        tpm = host.connect()
        for event in launch.events(host.images):
            if event.pcr == 17:
                launch.extend(tpm, event._replace(pcr=16))
        launched = eventlog.replay(launch.events(host.images), "sha256", (17, 18))
        assert tpm.read_pcrs({"sha256": (16,)})["sha256"][16] == launched[17]
        tpm.close()
        quoting = Quoting(host)
        reported = quoting.report(issue(), {"sha256": (16,)})
        told = {17: reported.pcrs["sha256"][16], 18: launched[18]}
        relabelled = dataclasses.replace(reported, pcrs={"sha256": told})
        outcome = judge(quoting, golden, relabelled)
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.UNTRUSTED
        assert codes(outcome)[:2] == ["selection_differs", "values_missing"]

    def test_bank_that_is_not_active(self, host: LabHost, golden: Criteria) -> None:
        allocate(host, {"sha1": True, "sha256": False})
        host.reboot()
        quoting = Quoting(host)
        outcome = judge(quoting, golden, quoting.report(issue()))
        assert isinstance(outcome, Appraised)
        assert outcome.level is Level.UNTRUSTED
        assert codes(outcome)[:2] == ["selection_differs", "pcr_not_quoted"]
        assert outcome.findings[0].seen in ("nothing", "sha256:none")

    def test_other_selection_than_asked(self, quoting: Quoting, golden: Criteria) -> None:
        outcome = judge(quoting, golden, quoting.report(issue(), {"sha256": (17,)}))
        assert codes(outcome)[:2] == ["selection_differs", "pcr_not_quoted"]

    def test_counters_that_went_back(self, host: LabHost, golden: Criteria) -> None:
        kept = (host.swtpm.state / "tpm2-00.permall").read_bytes()
        host.reboot()
        quoting = Quoting(host)
        later = judge(quoting, golden, quoting.report(issue()))
        assert isinstance(later, Appraised)
        assert later.level is Level.TRUSTED
        host.power_cut()
        (host.swtpm.state / "tpm2-00.permall").write_bytes(kept)
        (host.swtpm.state / "tpm2-00.volatilestate").unlink(missing_ok=True)
        host.start()
        host.boot()
        later_boot = dataclasses.replace(later.boot, reset_count=later.boot.reset_count + 5)
        assert codes(judge(quoting, golden, quoting.report(issue()), later_boot)) == [
            "counters_back"
        ]

    def test_kernel_changed_without_a_tpm_reset(self, quoting: Quoting, golden: Criteria) -> None:
        first = judge(quoting, golden, quoting.report(issue()))
        assert isinstance(first, Appraised)
        quoting.host.boot_id_file.write_text("99999999-9999-9999-9999-999999999999\n")
        assert codes(judge(quoting, golden, quoting.report(issue()), first.boot)) == [
            "kernel_without_reset"
        ]

    @pytest.mark.parametrize("ahead_ms", [HOUR_MS, 24 * HOUR_MS, 365 * 24 * HOUR_MS])
    def test_boot_time_from_the_future(
        self, quoting: Quoting, golden: Criteria, ahead_ms: int
    ) -> None:
        first = judge(quoting, golden, quoting.report(issue()))
        assert isinstance(first, Appraised)
        later = quoting.report(issue(), ahead_ms=ahead_ms)
        assert codes(judge(quoting, golden, later, first.boot)) == ["boot_time_ahead"]

    def test_boot_time_from_the_future_after_a_reboot(
        self, host: LabHost, quoting: Quoting, golden: Criteria
    ) -> None:
        first = judge(quoting, golden, quoting.report(issue()))
        assert isinstance(first, Appraised)
        host.reboot()
        # The lab's TPM counted at its power-on as much as this machine runs: more than that, and
        # more than the drift of it.
        later = quoting.report(issue(), ahead_ms=boottime_ms() + 2 * HOUR_MS)
        assert codes(judge(quoting, golden, later, first.boot)) == ["boot_time_ahead"]


class TestDiscarded:
    def test_replayed_nonce(self, quoting: Quoting, golden: Criteria) -> None:
        old = quoting.report(issue(nonce=b"o" * 32))
        outcome = judge(quoting, golden, dataclasses.replace(old, nonce=b"n" * 32))
        assert isinstance(outcome, Discarded)
        assert outcome.finding.code == "nonce_differs"

    def test_another_tpm(self, make_host: MakeHost, quoting: Quoting, golden: Criteria) -> None:
        other = make_host("host-2")
        other.boot()
        outcome = judge(quoting, golden, Quoting(other).report(issue()))
        assert isinstance(outcome, Discarded)
        assert outcome.finding.code == "bad_signature"

    def test_ak_under_another_ek_of_the_same_tpm(self, host: LabHost, golden: Criteria) -> None:
        under_p384 = Quoting(host, ek="ecc-p384")
        rsa = Quoting(host)
        claimed = EnrolledTpm20("host-1", rsa.ek, under_p384.identity.ak)
        outcome = appraise(
            under_p384.report(issue()), claimed, issue(), None, None, REQUIRED, golden, NOW
        )
        assert isinstance(outcome, Discarded)
        assert outcome.finding.code == "wrong_signer"

    @pytest.mark.parametrize("name", ["attest", "signature"])
    def test_flipped_bits(self, quoting: Quoting, golden: Criteria, name: str) -> None:
        reported = quoting.report(issue())
        original = getattr(reported, name)
        for bit in range(0, len(original) * 8, 7):
            flipped = bytearray(original)
            flipped[bit // 8] ^= 1 << bit % 8
            outcome = judge(
                quoting, golden, dataclasses.replace(reported, **{name: bytes(flipped)})
            )
            assert isinstance(outcome, Discarded), bit


class TestEnrolment:
    def test_refuses_an_unrestricted_key_of_a_real_tpm(self, quoting: Quoting) -> None:
        area = bytearray(quoting.blob.public)
        attributes = int.from_bytes(area[4:8], "big") & ~tpm2.RESTRICTED
        area[4:8] = attributes.to_bytes(4, "big")
        tpm = quoting.host.connect()
        with (
            keys.endorsement_key(tpm, ["rsa-2048"]) as endorsed,
            keys.use_of(tpm, endorsed.public) as session,
        ):
            template = bytes(area[: -2 * 34]) + b"\0\0\0\0"
            _, public = tpm.create(endorsed.handle, session, template)
        tpm.close()
        with pytest.raises(errors.Refused, match="ak_unrestricted"):
            endorsement.check_ak(tpm2.parse_public(public))

    def test_refuses_the_certificate_of_another_chip(
        self, make_host: MakeHost, quoting: Quoting, tpm_pool: TpmPool
    ) -> None:
        other = make_host("host-2")
        other.boot()
        authorities = endorsement.load_authorities(tpm_pool.authorities)
        now = datetime.datetime.now(datetime.timezone.utc)
        with pytest.raises(errors.Refused, match="ek_key_differs"):
            endorsement.check_ek_certificate(
                Quoting(other).certificate, quoting.ek, authorities, now
            )

    @pytest.mark.parametrize("ek", ["rsa-2048", "ecc-p256", "ecc-p384", "rsa-3072"])
    @pytest.mark.parametrize("kind", ["ecc-p256", "rsa-2048"])
    def test_a_real_tpm_opens_a_credential_made_without_one(
        self, host: LabHost, tpm_pool: TpmPool, ek: str, kind: str
    ) -> None:
        quoting = Quoting(host, kind, ek)
        authorities = endorsement.load_authorities(tpm_pool.authorities)
        now = datetime.datetime.now(datetime.timezone.utc)
        if quoting.certificate:  # the software TPM's vendor certifies two kinds
            endorsement.check_ek_certificate(quoting.certificate, quoting.ek, authorities, now)
        endorsement.check_ek(quoting.ek)
        endorsement.check_ak(quoting.identity.ak)
        seed = b"s" * tpm2.DIGEST_SIZES[quoting.ek.name_hash]
        secret = hashlib.sha256(b"secret").digest()
        credential, encrypted = endorsement.make_credential(
            quoting.ek, tpm2.name(quoting.identity.ak), secret, seed
        )
        tpm = host.connect()
        key = keys.AttestationKey(tpm, quoting.blob)
        assert key.activate(credential, encrypted) == secret
        other = endorsement.make_credential(quoting.ek, b"\0\x0b" + bytes(32), secret, seed)
        with pytest.raises(errors.Unavailable):
            key.activate(*other)
        key.unload()
        tpm.close()


class TestTrusted:
    @pytest.mark.parametrize("kind", ["ecc-p256", "rsa-2048"])
    def test_a_measured_boot(self, host: LabHost, golden: Criteria, kind: str) -> None:
        quoting = Quoting(host, kind)
        outcome = judge(quoting, golden, quoting.report(issue()))
        assert isinstance(outcome, Appraised)
        assert (outcome.level, outcome.findings) == (Level.TRUSTED, ())

    def test_a_reboot_and_a_power_cut_stay_good(self, host: LabHost, golden: Criteria) -> None:
        quoting, previous = Quoting(host), None
        for happen in (lambda: None, host.reboot, host.power_cut):
            happen()
            if happen == host.power_cut:
                host.start()
                host.boot()
            outcome = judge(quoting, golden, quoting.report(issue()), previous)
            assert isinstance(outcome, Appraised)
            assert outcome.findings == ()
            previous = outcome.boot
