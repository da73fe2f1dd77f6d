# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Every finding that the verifier can report: its code, the check that failed, what to do next.

Numbers and codes are stable: they stand in results, in the documents and in programs that read
either. The README's table is compared with this list by a test.
"""

from __future__ import annotations

import enum

from ovirt_tcp_plugin.messages import components
from ovirt_tcp_plugin.messages.result import Finding

_READ_AGENT_LOG = "look at the agent's log on the host (journalctl -u ovirt-tcp-agent)"
_HAND_OVER_LOG = (
    "check that before_vdsm_start handed over the event log of this boot (/run/ovirt-tcp/boot/), "
    "and reboot the host"
)
_START_THE_STUB = (
    "if the kernel shows no binary_bios_measurements, it was started without its EFI stub: "
    "switch Secure Boot on, or boot through the stub; otherwise restart vdsmd, so that "
    "before_vdsm_start hands the log over"
)
_OPEN_MEMORY = (
    "boot with Secure Boot off, so that the kernel does not close /dev/mem; or choose the profile "
    "uefi (appraisal.profile in the server's verifier.yaml), which needs no log of a launch"
)
_SHORTEN_LOG = (
    "see what fills it (tpm2_eventlog /sys/kernel/security/tpm0/binary_bios_measurements): take "
    "devices with option ROMs out of the boot, or update the firmware; the profile txt does not "
    "need the firmware's log"
)
_ADD_VALUE = (
    "after a planned update add the new value (ovirt-tcp reference import or add); "
    "otherwise investigate the host"
)
_SWITCH_BANK_ON = "switch the TPM's sha256 bank on in the firmware (a TPM 1.2 has sha1 only)"
_ENROL_AGAIN = (
    "enrol the host again if its TPM was rolled back on purpose, as a restored virtual machine's "
    "is (ovirt-tcp-verifier token enrol HOST); otherwise investigate: a reboot does not help"
)
_REBOOT = "reboot the host; if it stays so, its TPM was reset or replayed behind its kernel"


class CheckNumber(enum.IntEnum):
    """The numbered checks; what each one demands is said in `verifier/appraisal/appraise.py`."""

    FORM = 0
    ENROLMENT = 1
    QUOTE = 2
    SIGNATURE = 3
    NONCE = 4
    COUNTERS = 5
    VALUES = 6
    LOG = 7
    REFERENCE_VALUES = 8
    SELECTION = 9
    SIGNER = 10


class FindingCode(enum.Enum):
    """A code with its check and its advice.

    Measured parts have codes of their own: `part_differs`.
    """

    code: str
    check: CheckNumber
    next_step: str

    def __new__(cls, code: str, check: CheckNumber, next_step: str) -> FindingCode:
        member = object.__new__(cls)
        member._value_ = code
        member.code = code
        member.check = check
        member.next_step = next_step
        return member

    MALFORMED = (
        "malformed",
        CheckNumber.FORM,
        _READ_AGENT_LOG + "; agent and server may be of different releases",
    )
    NOT_ATTESTED = ("not_attested", CheckNumber.FORM, "start the agent on the host")
    NO_ANSWER = (
        "no_answer",
        CheckNumber.FORM,
        "see that the agent runs and reaches the server: " + _READ_AGENT_LOG + "; "
        "after its TPM was cleared, enrol the host again (ovirt-tcp-verifier token enrol HOST)",
    )
    LOG_UNKNOWN = (
        "log_unknown",
        CheckNumber.FORM,
        "nothing, if it passes: the agent sends the log with its next report",
    )
    RESULT_ENDED = (
        "result_ended",
        CheckNumber.FORM,
        "see that the agent runs and reaches the server: " + _READ_AGENT_LOG,
    )
    RECORD_UNREADABLE = (
        "record_unreadable",
        CheckNumber.FORM,
        "wait for the host's next evidence; "
        "if that does not help, run on the server's machine: ovirt-tcp-verifier record list",
    )
    NOT_ENROLLED = (
        "not_enrolled",
        CheckNumber.ENROLMENT,
        "enrol it: ovirt-tcp-verifier token enrol HOST; "
        "check that its name is its address in the engine",
    )
    TPM12_OFF = (
        "tpm12_off",
        CheckNumber.ENROLMENT,
        "give the host a TPM 2.0; "
        "or accept SHA-1 and set appraisal.tpm12 in the server's verifier.yaml",
    )
    NOT_A_QUOTE = (
        "not_a_quote",
        CheckNumber.QUOTE,
        "investigate the host: its key signed something else than a quote",
    )
    BAD_SIGNATURE = (
        "bad_signature",
        CheckNumber.SIGNATURE,
        "if the host was reinstalled, enrol it again; otherwise somebody posts in its name",
    )
    NONCE_UNKNOWN = (
        "nonce_unknown",
        CheckNumber.NONCE,
        "nothing, if it passes; a load balancer must keep an agent's connection on one server",
    )
    NONCE_FOREIGN = (
        "nonce_foreign",
        CheckNumber.NONCE,
        "investigate: this evidence was made for another host",
    )
    NONCE_EXPIRED = (
        "nonce_expired",
        CheckNumber.NONCE,
        "see why the host needs so long for a quote: " + _READ_AGENT_LOG,
    )
    NONCE_DIFFERS = ("nonce_differs", CheckNumber.NONCE, _READ_AGENT_LOG)
    COUNTERS_BACK = ("counters_back", CheckNumber.COUNTERS, _ENROL_AGAIN)
    CLOCK_BACK = ("clock_back", CheckNumber.COUNTERS, _REBOOT)
    KERNEL_WITHOUT_RESET = (
        "kernel_without_reset",
        CheckNumber.COUNTERS,
        "reboot the host in the ordinary way: kexec leaves no measurement",
    )
    RESET_WITHOUT_BOOT = ("reset_without_boot", CheckNumber.COUNTERS, _REBOOT)
    RESTARTED = (
        "restarted",
        CheckNumber.COUNTERS,
        "reboot the host, and keep it from being suspended; otherwise investigate",
    )
    BOOT_TIME_AHEAD = (
        "boot_time_ahead",
        CheckNumber.COUNTERS,
        "reboot the host, above all if its TPM was cleared in this boot; "
        "if it stays so, investigate: its agent claims time that has not passed",
    )
    VALUES_MISSING = ("values_missing", CheckNumber.VALUES, _SWITCH_BANK_ON)
    VALUES_DIFFER = (
        "values_differ",
        CheckNumber.VALUES,
        _READ_AGENT_LOG + "; a PCR may have been extended while it was quoted",
    )
    PCR_NOT_QUOTED = ("pcr_not_quoted", CheckNumber.VALUES, _SWITCH_BANK_ON)
    LOG_MISSING = ("log_missing", CheckNumber.LOG, _HAND_OVER_LOG)
    FIRMWARE_LOG_MISSING = ("firmware_log_missing", CheckNumber.LOG, _START_THE_STUB)
    LOG_LOCKED_DOWN = ("log_locked_down", CheckNumber.LOG, _OPEN_MEMORY)
    LOG_OVERSIZED = ("log_oversized", CheckNumber.LOG, _SHORTEN_LOG)
    BANK_NOT_EXTENDED = ("bank_not_extended", CheckNumber.LOG, _SWITCH_BANK_ON)
    LOG_MALFORMED = ("log_malformed", CheckNumber.LOG, _HAND_OVER_LOG)
    LOG_DIFFERS = ("log_differs", CheckNumber.LOG, _HAND_OVER_LOG)
    LOG_WITHOUT_LAUNCH = (
        "log_without_launch",
        CheckNumber.LOG,
        "switch TXT on in the firmware and boot tboot; if it was on, investigate: a log was forged",
    )
    NO_REFERENCE_VALUES = (
        "no_reference_values",
        CheckNumber.REFERENCE_VALUES,
        "import them from a host known to be good: "
        "ovirt-tcp reference import NAME --from-host HOST",
    )
    REFERENCE_VALUES_UNREADABLE = (
        "reference_values_unreadable",
        CheckNumber.REFERENCE_VALUES,
        "remove the set that `ovirt-tcp reference list` names, and import it again",
    )
    NO_LAUNCH = (
        "no_launch",
        CheckNumber.REFERENCE_VALUES,
        "switch TXT and the TPM on in the firmware, and boot the entry of tboot",
    )
    PCR_UNPROVEN = (
        "pcr_unproven",
        CheckNumber.REFERENCE_VALUES,
        "see to the findings of check 6 first",
    )
    STEPS_UNPROVEN = (
        "steps_unproven",
        CheckNumber.REFERENCE_VALUES,
        "see to the findings of check 7 first",
    )
    PCR_DIFFERS = ("pcr_differs", CheckNumber.REFERENCE_VALUES, _ADD_VALUE)
    EVENT_ADDED = ("event_added", CheckNumber.REFERENCE_VALUES, _ADD_VALUE)
    EVENT_MISSING = ("event_missing", CheckNumber.REFERENCE_VALUES, _ADD_VALUE)
    EVENTS_REORDERED = (
        "events_reordered",
        CheckNumber.REFERENCE_VALUES,
        "investigate the host: parts of its boot were exchanged",
    )
    EVENT_RELABELLED = (
        "event_relabelled",
        CheckNumber.REFERENCE_VALUES,
        "investigate the host: its log calls a measured part by a false name",
    )
    SECURE_BOOT_OFF = (
        "secure_boot_off",
        CheckNumber.REFERENCE_VALUES,
        "switch Secure Boot on in the firmware (and shim's validation: mokutil "
        "--enable-validation), and reboot the host",
    )
    SECURE_BOOT_UNPROVEN = (
        "secure_boot_unproven",
        CheckNumber.REFERENCE_VALUES,
        "see to it that the host sends the firmware's event log; "
        "the value of PCR 7 by itself does not say whether Secure Boot is on",
    )
    COMMAND_LINE_DIFFERS = (
        "command_line_differs",
        CheckNumber.REFERENCE_VALUES,
        "after a planned change of the kernel's command line import it again "
        "(ovirt-tcp reference import); otherwise investigate the host",
    )
    BOOT_COMMAND_UNKNOWN = (
        "boot_command_unknown",
        CheckNumber.REFERENCE_VALUES,
        "boot the ordinary entry without changes at GRUB's menu or prompt; "
        "otherwise investigate the host",
    )
    KERNEL_NOT_MEASURED = (
        "kernel_not_measured",
        CheckNumber.REFERENCE_VALUES,
        "boot the kernel through shim and GRUB, or as a unified kernel image; "
        "then import the reference values again",
    )
    SELECTION_DIFFERS = ("selection_differs", CheckNumber.SELECTION, _SWITCH_BANK_ON)
    WRONG_SIGNER = (
        "wrong_signer",
        CheckNumber.SIGNER,
        "enrol the host again; if it stays so, the AK is of another TPM",
    )

    def finding(self, text: str, expected: str = "", seen: str = "") -> Finding:
        """Return the finding with this code; its other parts are as in `Finding`."""
        return Finding(int(self.check), self.code, text, expected, seen)


_BY_CODE = {member.code: member for member in FindingCode}
# Of the parts of a boot that are not the known ones; an event without a known word is an "event".
PART_CODES = frozenset(f"{word}_differs" for word in (*components.WORDS, "event"))
# The check of every code.
CHECKS = {
    **{code: member.check for code, member in _BY_CODE.items()},
    **dict.fromkeys(PART_CODES, CheckNumber.REFERENCE_VALUES),
}


def part_differs(component: str, text: str, expected: str, seen: str) -> Finding:
    """Return the finding that a component of the boot is none of the known ones."""
    code = f"{components.word_of(component)}_differs"
    return Finding(int(CheckNumber.REFERENCE_VALUES), code, text, expected, seen)


def next_step(code: str) -> str:
    """Return what to do about a finding with this code; empty for a code that is not known.

    A server of a later release may know parts of a boot that this one does not.
    """
    if code in _BY_CODE:
        return _BY_CODE[code].next_step
    return _ADD_VALUE if code.endswith("_differs") else ""
