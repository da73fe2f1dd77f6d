# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Forty ways in which a host can be wrong, and the code that each is told by.

Real software TPMs, but for two keys.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Callable, Sequence

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import keys
from ovirt_tcp_plugin.lab import firmware, launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages import components, evidence, reference_values, tpm2
from ovirt_tcp_plugin.messages.eventlog import MLE_HASH, TBOOT_MODULE, Event
from ovirt_tcp_plugin.verifier import endorsement
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised, Discarded, appraise
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from ovirt_tcp_plugin.verifier.store import hosts
from tests.conftest import TpmPool
from tests.verifier.quoting import Quoting, allocate
from tests.verifier.software_tpm import AK_ATTRIBUTES, SoftwareTpm, ecc_public
from tests.verifier.vendor import NOW as VENDOR_NOW
from tests.verifier.vendor import Vendor

REQUIRED = {"sha256": (0, 4, 7, 17, 18)}
NOW = 10_000
BANKS = launch.BANKS
Events = Sequence[Event]
Change = Callable[[Events], Events]


def other(component: str) -> Change:
    """Another digest in the place of this component of PCR 17."""

    def change(told: Events) -> Events:
        own = [one for one in told if one.pcr == 17]
        named = components.steps(own, "sha256", (17,))
        position = [step.component for step in named].index(component)
        victim = own[position]
        return [
            one._replace(digests=launch.measured(17, 0, b"evil").digests) if one is victim else one
            for one in told
        ]

    return change


def relabel(told: Events) -> Events:
    return [one._replace(type=0x40C) if one.type == MLE_HASH else one for one in told]


def without_sha256(told: Events) -> Events:
    digests = {"sha1": b"d" * 20}
    return [one._replace(digests=digests) if one.type == MLE_HASH else one for one in told]


class Lab:
    """One host on a real software TPM, and the reference values of its good boot."""

    def __init__(
        self, host: LabHost, make_host: Callable[..., LabHost], pool: TpmPool, vendor: Vendor
    ) -> None:
        self.host, self.make_host, self.pool, self.vendor = host, make_host, pool, vendor
        self.good = launch.events(host.images)
        told = components.steps([*self.early(), *self.good], "sha256", REQUIRED["sha256"])
        self.criteria = Criteria("sha256", [reference_values.from_boot("golden", "sha256", told)])

    def early(self, **changes: object) -> Events:
        """Return what a machine with these changes measures before the launch."""
        return firmware.events(Machine(**changes), self.host.images)  # type: ignore[arg-type]

    def boot(
        self,
        told: Events | None = None,
        early: Events | None = None,
        log: Events | None = None,
        launched: bool = True,
    ) -> None:
        """Boot with these events.

        `log` is what the TXT log tells instead, an empty one means that there is none.
        """
        told, early = told or self.good, early or self.early()
        tpm = self.host.swtpm.connect()
        launch.power_on(self.host.swtpm, tpm, early)
        if launched:
            launch.launch(self.host.swtpm, tpm, told)
        tpm.close()
        self.host.boot_id_file.write_text(f"{uuid.uuid4()}\n")
        self.host.firmware_log_file.write_bytes(launch.log_of(early))
        shown = told if log is None else log
        self.host.txt_log_file.unlink(missing_ok=True)
        if shown:
            self.host.txt_log_file.write_bytes(launch.log_of(shown))

    def codes(self, **how: object) -> list[str]:
        """Return the codes of the host's next evidence."""
        self.boot(**how)  # type: ignore[arg-type]
        quoting = Quoting(self.host)
        return self.appraise(quoting, quoting.report(issue()))

    def appraise(
        self,
        quoting: Quoting,
        reported: evidence.Evidence,
        issued: IssuedNonce | None = None,
        nothing_issued: bool = False,
        previous: BootCounters | None = None,
        identity: EnrolledTpm20 | None = None,
    ) -> list[str]:
        out = None if nothing_issued else issued or issue()
        outcome = appraise(
            reported,
            identity or quoting.identity,
            out,
            previous,
            None,
            REQUIRED,
            self.criteria,
            NOW,
        )
        if isinstance(outcome, Discarded):
            return [outcome.finding.code]
        assert isinstance(outcome, Appraised)
        return [finding.code for finding in outcome.findings]

    def booted(self) -> Quoting:
        self.boot()
        return Quoting(self.host)


def issue(host: str = "host-1", nonce: bytes = b"n" * 32) -> IssuedNonce:
    return IssuedNonce(evidence.Challenge(nonce, REQUIRED, 1000), host, NOW - 10, NOW + 1000)


def refusal(work: Callable[[], object]) -> list[str]:
    try:
        work()
    except errors.Refused as e:
        return [e.code]
    return []


def images(lab: Lab, **changes: object) -> Events:
    return launch.events(dataclasses.replace(lab.host.images, **changes))  # type: ignore[arg-type]


def other_sinit(told: Events) -> Events:
    return [launch.measured(17, told[0].type, b"another SINIT".ljust(36)), *told[1:]]


def tampered(tamper: Callable[..., launch.Images]) -> Callable[[Lab], list[str]]:
    return lambda lab: lab.codes(told=launch.events(tamper(lab.host.images, lab.host.directory)))


def truncated(lab: Lab) -> list[str]:
    lab.boot()
    lab.host.txt_log_file.write_bytes(launch.truncate(launch.log_of(lab.good)))
    quoting = Quoting(lab.host)
    return lab.appraise(quoting, quoting.report(issue()))


def wrong_tpm(lab: Lab) -> list[str]:
    stranger = lab.make_host("host-2", chip=1)
    stranger.boot()
    return lab.appraise(lab.booted(), Quoting(stranger).report(issue()))


def swapped_ak(lab: Lab) -> list[str]:
    quoting = lab.booted()
    return lab.appraise(quoting, Quoting(lab.host).report(issue()))


def unrestricted_ak(lab: Lab) -> list[str]:
    key = ec.generate_private_key(ec.SECP256R1())
    ak = ecc_public(key, AK_ATTRIBUTES & ~tpm2.RESTRICTED, tpm2.ALG_ECDSA)
    return refusal(lambda: endorsement.check_ak(ak))


def check_ek(
    lab: Lab, vendor: Vendor, end: datetime.datetime, key: ec.EllipticCurvePublicKey | None = None
) -> list[str]:
    tpm = SoftwareTpm()
    certificate = vendor.certify(key or tpm.ek_key.public_key(), end=end)
    return refusal(
        lambda: endorsement.check_ek_certificate(
            certificate, tpm.ek, lab.vendor.authorities, VENDOR_NOW
        )
    )


def other_key(lab: Lab) -> list[str]:
    return check_ek(lab, lab.vendor, year(), SoftwareTpm(1).ek_key.public_key())


def second_name(lab: Lab) -> list[str]:
    return refusal(lambda: hosts.check_binding([("host-1", "the ek")], "host-2", "the ek"))


def year() -> datetime.datetime:
    return VENDOR_NOW + datetime.timedelta(days=300)


def changed_boot_id(lab: Lab) -> list[str]:
    quoting = lab.booted()
    return lab.appraise(quoting, quoting.report(issue(), boot_id=str(uuid.uuid4())))


def counters_back(lab: Lab) -> list[str]:
    quoting = lab.booted()
    reported = quoting.report(issue())
    return lab.appraise(quoting, reported, previous=BootCounters(str(uuid.uuid4()), 10**6, 0, 0))


def empty_bank(lab: Lab) -> list[str]:
    allocate(lab.host, {"sha1": True, "sha256": False})
    quoting = lab.booted()
    return lab.appraise(quoting, quoting.report(issue()))


def sixteen_as_seventeen(lab: Lab) -> list[str]:
    lab.boot(launched=False)
    tpm = lab.host.connect()
    for one in lab.good:
        if one.pcr == 17:
            launch.extend(tpm, one._replace(pcr=16))
    tpm.close()
    lab.host.txt_log_file.write_bytes(launch.log_of(lab.good))
    quoting = Quoting(lab.host)
    reported = quoting.report(issue(), {"sha256": (0, 4, 7, 16, 18)})
    values = {
        17 if index == 16 else index: value for index, value in reported.pcrs["sha256"].items()
    }
    return lab.appraise(quoting, dataclasses.replace(reported, pcrs={"sha256": values}))


def sha1_signature(lab: Lab) -> list[str]:
    tpm = SoftwareTpm()
    tpm.hash_name, tpm.hash = "sha1", hashes.SHA1()  # noqa: S303
    tpm.pcrs.update({index: bytes(32) for index in (0, 4, 7)})
    return lab.appraise(lab.booted(), tpm.report(issue()), identity=tpm.host())


def malformed(lab: Lab) -> list[str]:
    quoting = lab.booted()
    return lab.appraise(quoting, quoting.report(issue(), signature=b"rubbish"))


def insert(lab: Lab) -> Events:
    position = next(i for i, one in enumerate(lab.good) if one.type == TBOOT_MODULE)
    extra = Event(17, TBOOT_MODULE, {BANKS[-1]: b"e" * 32}, b"")
    return [*lab.good[: position + 2], extra, *lab.good[position + 2 :]]


def reported(selection: tpm2.Selection) -> Callable[[Lab], list[str]]:
    def fault(lab: Lab) -> list[str]:
        quoting = lab.booted()
        return lab.appraise(quoting, quoting.report(issue(), selection))

    return fault


def answered(**how: object) -> Callable[[Lab], list[str]]:
    def fault(lab: Lab) -> list[str]:
        quoting = lab.booted()
        return lab.appraise(quoting, quoting.report(issue()), **how)  # type: ignore[arg-type]

    return fault


def launched(change: Change) -> Callable[[Lab], list[str]]:
    return lambda lab: lab.codes(told=change(lab.good))


def told(change: Change) -> Callable[[Lab], list[str]]:
    return lambda lab: lab.codes(log=change(lab.good))


FAULTS: list[tuple[str, str, Callable[[Lab], list[str]]]] = [
    ("tboot image", "mle_differs", tampered(launch.tamper_tboot)),
    (
        "tboot command line",
        "mle_differs",
        lambda lab: lab.codes(told=images(lab, tboot_cmdline="logging=none")),
    ),
    ("tboot policy", "tboot_policy_differs", launched(other("tboot_policy"))),
    ("kernel", "kernel_differs", tampered(launch.tamper_kernel)),
    (
        "kernel command line",
        "kernel_differs",
        lambda lab: lab.codes(told=images(lab, kernel_cmdline="init=/bin/sh")),
    ),
    (
        "initrd",
        "initrd_differs",
        lambda lab: lab.codes(told=images(lab, initrd=lab.host.images.kernel)),
    ),
    ("SINIT", "sinit_differs", launched(other_sinit)),
    ("BIOS ACM", "bios_acm_differs", launched(other("bios_acm"))),
    ("STM", "stm_differs", launched(other("stm"))),
    (
        "OsSinitData capabilities",
        "os_sinit_capabilities_differs",
        launched(other("os_sinit_capabilities")),
    ),
    ("NV info", "nv_info_differs", launched(other("nv_info"))),
    ("no launch", "no_launch", lambda lab: lab.codes(launched=False, log=())),
    ("launch without log", "log_missing", lambda lab: lab.codes(log=())),
    ("log without launch", "log_without_launch", lambda lab: lab.codes(launched=False)),
    ("log truncated", "log_malformed", truncated),
    ("log reordered", "log_differs", told(lambda good: [good[0], good[2], good[1], *good[3:]])),
    ("event relabelled", "event_relabelled", told(relabel)),
    ("event added", "event_added", lambda lab: lab.codes(told=insert(lab))),
    (
        "event removed",
        "event_missing",
        launched(lambda good: [one for one in good if one.type != MLE_HASH]),
    ),
    ("digest of another bank", "log_differs", told(without_sha256)),
    ("PCR 0", "firmware_differs", lambda lab: lab.codes(early=lab.early(code=b"evil"))),
    (
        "PCR 7 (Secure BootCounters off)",
        "secure_boot_differs",
        lambda lab: lab.codes(early=lab.early(secure_boot=False)),
    ),
    (
        "boot loader",
        "boot_loader_differs",
        lambda lab: lab.codes(early=lab.early(boot_loader=b"evil")),
    ),
    (
        "other firmware version",
        "firmware_version_differs",
        lambda lab: lab.codes(early=lab.early(version="0.9")),
    ),
    ("wrong TPM", "bad_signature", wrong_tpm),
    ("AK swapped after enrolment", "bad_signature", swapped_ak),
    ("unrestricted AK", "ak_unrestricted", unrestricted_ak),
    ("EK of unknown vendor", "ek_untrusted", lambda lab: check_ek(lab, Vendor("stranger"), year())),
    (
        "EK chain expired",
        "ek_expired",
        lambda lab: check_ek(lab, lab.vendor, VENDOR_NOW - datetime.timedelta(days=1)),
    ),
    ("EK certificate for another key", "ek_key_differs", other_key),
    ("second name", "ek_in_use", second_name),
    ("nonce replayed", "nonce_unknown", answered(nothing_issued=True)),
    ("nonce of another host", "nonce_foreign", answered(issued=issue("host-2"))),
    ("boot id changed after the quote", "nonce_differs", changed_boot_id),
    ("reset counter back", "counters_back", counters_back),
    ("selection smaller than asked", "selection_differs", reported({"sha256": (0, 4, 7, 17)})),
    ("empty bank", "pcr_not_quoted", empty_bank),
    ("PCR 16 as 17", "selection_differs", sixteen_as_seventeen),
    ("SHA-1 signature", "bad_signature", sha1_signature),
    ("malformed message", "malformed", malformed),
]


ABOVE = {("no_launch", "log_without_launch"), ("selection_differs", "pcr_not_quoted")}


@pytest.fixture
def lab(make_host: Callable[..., LabHost], tpm_pool: TpmPool, vendor: Vendor) -> Lab:
    host = make_host("host-1")
    return Lab(host, make_host, tpm_pool, vendor)


def test_there_are_forty() -> None:
    assert len({name for name, _, _ in FAULTS}) == 40


@pytest.mark.parametrize(
    ("code", "fault"), [pytest.param(code, fault, id=name) for name, code, fault in FAULTS]
)
def test_a_fault_is_told_by_its_code(
    lab: Lab, code: str, fault: Callable[[Lab], list[str]]
) -> None:
    told = fault(lab)
    assert code in told
    # What is told first is what a person sees in the list of hosts: the fault itself, or what is
    # above it.
    assert told[0] == code or (told[0], code) in ABOVE


def test_without_a_fault_nothing_is_told(lab: Lab) -> None:
    assert lab.codes() == []
    assert keys.kind_of(Quoting(lab.host).blob) == "ecc-p256"
