# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What to do next, by the code of a finding. A test finds codes that have no advice."""

from __future__ import annotations

from collections.abc import Mapping

_AGENT_LOG = "look at the agent's log on the host (journalctl -u ovirt-tcp-agent)"
_LOG = "check that before_vdsm_start handed over the event log of this boot (/run/ovirt-tcp/boot/), and reboot the host"
_PART = "after a planned update add the new value (ovirt-tcp reference import or add); otherwise investigate the host"
_BANK = "switch the TPM's sha256 bank on in the firmware (a TPM 1.2 has sha1 only)"
_REBOOT = "reboot the host; if it stays so, its TPM was reset or replayed behind its kernel"

_BY_CODE: Mapping[str, str] = {
    "bad_signature": "if the host was reinstalled, enrol it again; otherwise somebody posts in its name",
    "clock_back": _REBOOT,
    "counters_back": _REBOOT,
    "event_added": _PART,
    "event_missing": _PART,
    "event_relabelled": "investigate the host: its log calls a measured part by a false name",
    "events_reordered": "investigate the host: parts of its boot were exchanged",
    "kernel_without_reset": "reboot the host in the ordinary way: kexec leaves no measurement",
    "log_differs": _LOG,
    "log_malformed": _LOG,
    "log_missing": _LOG,
    "log_without_launch": "switch TXT on in the firmware and boot tboot; if it was on, investigate: a log was forged",
    "malformed": _AGENT_LOG + "; agent and server may be of different releases",
    "no_answer": "see that the agent runs and reaches the server: " + _AGENT_LOG,
    "no_launch": "switch TXT and the TPM on in the firmware, and boot the entry of tboot",
    "no_reference_values": "import them from a host known to be good: ovirt-tcp reference import NAME --from-host HOST",
    "nonce_differs": _AGENT_LOG,
    "nonce_expired": "see why the host needs so long for a quote: " + _AGENT_LOG,
    "nonce_foreign": "investigate: this evidence was made for another host",
    "nonce_unknown": "nothing, if it passes; a load balancer must keep an agent's connection on one server",
    "not_a_quote": "investigate the host: its key signed something else than a quote",
    "not_attested": "start the agent on the host",
    "not_enrolled": "enrol it: ovirt-tcp-verifier token enrol HOST; check that its name is its address in the engine",
    "pcr_differs": _PART,
    "pcr_not_quoted": _BANK,
    "pcr_unproven": "see to the findings of check 6 first",
    "record_unreadable": "wait for the host's next evidence; if that does not help, remove the host and enrol it again",
    "reference_values_unreadable": "remove the set that `ovirt-tcp reference list` names, and import it again",
    "reset_without_boot": _REBOOT,
    "selection_differs": _BANK,
    "steps_unproven": "see to the findings of check 7 first",
    "tpm12_off": "give the host a TPM 2.0; or accept SHA-1 and set appraisal.tpm12 in the server's verifier.yaml",
    "values_differ": _AGENT_LOG + "; a PCR may have been extended while it was quoted",
    "values_missing": _BANK,
    "wrong_signer": "enrol the host again; if it stays so, the AK is of another TPM",
}


def next_step(code: str) -> str:
    """Return what to do about a finding with this code; empty for a code that is not known."""
    return _BY_CODE.get(code, _PART if code.endswith("_differs") else "")
