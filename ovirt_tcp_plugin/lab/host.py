# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A host of the lab: software TPM, boot files, measured launch, and a real agent process.

A host can lie in every way that the tests and the demo need: what it boots and what it logs are
separate arguments.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from ovirt_tcp_plugin import boot_hook, config, gate
from ovirt_tcp_plugin.attester import host_tpm
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.hook_files import VERDICT_FILE
from ovirt_tcp_plugin.attester.settings import AgentSettings
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.lab import firmware, launch, txt_memory, vdsm
from ovirt_tcp_plugin.lab.board import Board
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.lab.processes import Processes
from ovirt_tcp_plugin.lab.swtpm import BANKS, STATE_FILES, Swtpm, clone
from ovirt_tcp_plugin.lab.swtpm12 import BANKS as BANKS12
from ovirt_tcp_plugin.lab.swtpm12 import STATE_FILE as STATE_FILE12
from ovirt_tcp_plugin.lab.swtpm12 import Swtpm12
from ovirt_tcp_plugin.messages import eventlog

# A lab does not wait half a minute for a server that it restarts itself.
RETRY_MOST_S = 0.5


def _chip(state: Path) -> Union[Swtpm, Swtpm12]:
    """Return the TPM of that state: of family 1.2 if it was made so."""
    if (state / STATE_FILE12).exists():
        return Swtpm12(state)
    return Swtpm(state)


class LabHost:
    """One host. Start it in a context; leaving it ends its agent and its TPM.

    Args:
        name: under which it enrols.
        directory: everything of this host lies here; made if missing.
        tpm_state: a TPM of either family, from `swtpm.Vendor` or `swtpm12.manufacture`, to copy;
            None if `directory/tpm` holds one, or is to be a new TPM 2.0 without EK certificate.
        images: what it boots by default; None makes them. Hosts of one model share them.
        ak_kind: "ecc-p256" or "rsa-2048".
        board: what else is in the host.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        tpm_state: Optional[Path] = None,
        images: Optional[launch.Images] = None,
        ak_kind: str = "ecc-p256",
        board: Optional[Board] = None,
    ) -> None:
        self.board = board or Board()
        self.name = name
        self.directory = directory
        self.config_directory = directory / "config"
        self.state_directory = directory / "agent"
        self.boot_directory = directory / "run"
        self.boot_id_file = self.boot_directory / "boot_id"
        self.txt_log_file = self.boot_directory / boot_hook.TXT_LOG_NAME
        self.firmware_log_file = self.boot_directory / boot_hook.FIRMWARE_LOG_NAME
        self.hooks_directory = directory / "run" / "agent"
        self.config_directory.mkdir(parents=True, exist_ok=True)
        self.hooks_directory.mkdir(parents=True, exist_ok=True)
        self.state_directory.mkdir(mode=0o700, exist_ok=True)
        for path in (directory, self.boot_directory):
            # The hook writes where nobody else may, whatever the umask.
            path.chmod(path.stat().st_mode & 0o755)
        if tpm_state is not None and not list((directory / "tpm").glob(STATE_FILES)):
            clone(tpm_state, directory / "tpm")
        self.swtpm = _chip(directory / "tpm")
        self.banks: Sequence[str] = BANKS12 if isinstance(self.swtpm, Swtpm12) else BANKS
        self.images = images or launch.make_images(directory / "boot")
        self._ak_kind = ak_kind
        self._processes = Processes(directory)

    def __enter__(self) -> LabHost:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Give the host power. It is not booted yet."""
        self.swtpm.start()

    def stop(self) -> None:
        """End agent and TPM."""
        self._processes.stop_all()
        self.swtpm.stop()

    # Booting, truly or not

    def boot(
        self,
        images: Optional[launch.Images] = None,
        *,
        machine: Optional[Machine] = None,
        measured_launch: bool = True,
        forged_log: Optional[bytes] = None,
        write_log: bool = True,
    ) -> None:
        """Boot: TPM reset, firmware, measured launch, a new boot id, the event logs.

        The agent must not run.

        Args:
            images: what really boots; None: the host's own.
            machine: the firmware and boot loader that load them; None: the lab's usual ones.
            measured_launch: False leaves PCR 17-22 at all ones, as a boot without tboot does.
            forged_log: written in the place of the true TXT log.
            write_log: False leaves no TXT log.
        """
        images = images or self.images
        launch_events = launch.events(images, self.banks)
        usual = firmware.events(machine or Machine(), images, self.banks)
        firmware_events = self.board.alter(usual)
        tpm = self.swtpm.connect()
        try:
            launch.power_on(self.swtpm, tpm, firmware_events, self.board.hardware_root)
            if measured_launch:
                launch.launch(self.swtpm, tpm, launch_events)
        finally:
            tpm.close()
        self.boot_id_file.write_text(f"{uuid.uuid4()}\n")
        self._hand_over_firmware_log(firmware_events)
        self._hand_over_txt_log(launch_events if measured_launch else None, write_log)
        if forged_log is not None and write_log:
            self.txt_log_file.write_bytes(forged_log)

    def _hand_over_firmware_log(self, events: Sequence[eventlog.Event]) -> None:
        """Show the log as the kernel does, and have the boot hook copy it."""
        shown = self.directory / "binary_bios_measurements"
        shown.unlink(missing_ok=True)
        if self.board.firmware_log:
            shown.write_bytes(self.board.write_log(events, self.banks))
        boot_hook.keep_firmware_log(str(shown), str(self.boot_directory))

    def _hand_over_txt_log(self, events: Optional[Sequence[eventlog.Event]], has_log: bool) -> None:
        """Fill the memory as SINIT and tboot do, and have the boot hook find the log in it."""
        self.txt_log_file.unlink(missing_ok=True)
        memory = self.directory / "mem"
        lockdown = self.directory / "lockdown"
        state = "none [integrity] confidentiality"
        lockdown.write_text(state if self.board.locked_down else "[none]")
        if not self.board.locked_down:
            element = self._txt_element() if has_log else 0
            txt_memory.write(memory, events, self.banks, element)
        try:
            boot_hook.keep_txt_log(str(memory), str(self.boot_directory), str(lockdown))
        finally:
            memory.unlink(missing_ok=True)

    def _txt_element(self) -> int:
        if self.board.txt_element is not None:
            return self.board.txt_element
        if isinstance(self.swtpm, Swtpm12):
            return txt_memory.SHA1_LOG
        return txt_memory.AGILE_LOG

    def reboot(
        self,
        images: Optional[launch.Images] = None,
        *,
        machine: Optional[Machine] = None,
        measured_launch: bool = True,
        forged_log: Optional[bytes] = None,
        write_log: bool = True,
    ) -> None:
        """Boot as `boot` does.

        An agent that runs is killed, as by a power cut, and starts again.
        """
        had_agent = self.agent_running
        self.kill_agent()
        self.boot(
            images,
            machine=machine,
            measured_launch=measured_launch,
            forged_log=forged_log,
            write_log=write_log,
        )
        if had_agent:
            self.start_agent()

    def good_log(self) -> bytes:
        """Return the TXT log of a good boot: what an attacker replays."""
        return launch.log_of(launch.events(self.images, self.banks), self.banks)

    # Its VDSM

    @property
    def hooks(self) -> Path:
        """The host's directory of VDSM hooks."""
        return self.directory / "hooks"

    def install_gate(self, keys: Path, scope: str = "all_vms") -> None:
        """Install the real gate at its three points, with the public keys of a directory."""
        config_file = self.config_directory / "gate.conf"
        config_file.write_text(f"scope = {scope}\nhost = {self.name}\n")
        config_file.chmod(0o644)
        gate_keys = self.config_directory / "verdict-keys"
        shutil.copytree(keys, gate_keys, dirs_exist_ok=True)
        for key in gate_keys.iterdir():
            key.chmod(0o644)
        places = {
            "CONFIG": str(config_file),
            "KEYS": str(gate_keys),
            "VERDICT": str(self.hooks_directory / VERDICT_FILE),
            "BOOT_ID": str(self.boot_id_file),
            "HOSTED_ENGINE": str(self.config_directory / "hosted-engine.conf"),
            "OWNER": os.geteuid(),
        }
        for point in vdsm.GATE_POINTS:
            vdsm.install(Path(gate.__file__), self.hooks, point, **places)

    # The agent

    def configure(self, verifier_url: str, ca_file: Path) -> None:
        """Write `agent.yaml`.

        The host must have been started, since the TPM's address is known then.
        """
        content = {
            "verifier": {
                "urls": [verifier_url],
                "ca_file": str(ca_file),
                "retry_most": RETRY_MOST_S,
            },
            "host": {"name": self.name},
            "tpm": {"device": self.swtpm.address, "key": self._ak_kind},
            "state": {"directory": str(self.state_directory)},
            "boot": {
                "boot_id": str(self.boot_id_file),
                "txt_log": str(self.txt_log_file),
                "firmware_log": str(self.firmware_log_file),
            },
            "hooks": {"directory": str(self.hooks_directory)},
        }
        # JSON is YAML.
        (self.config_directory / "agent.yaml").write_text(json.dumps(content, indent=2))

    def enrol(self, token: str, verifier_url: str, ca_file: Path) -> None:
        """Configure the agent and enrol, as `ovirt-tcp-agent enrol` does. The agent must not run.

        Raises:
            Refused: the verifier's reason.
            Unavailable: it does not answer, or the TPM has no EK certificate.
        """
        self.configure(verifier_url, ca_file)
        settings = config.load(AgentSettings, "agent", self.config_directory)
        client = VerifierClient(settings.verifier.urls, settings.verifier.ca_file, None)
        state = AgentState(self.state_directory)
        try:
            with host_tpm.connect(settings.tpm) as tpm:
                tpm.enrol(state, client, self.name, token)
        finally:
            client.close()

    def start_agent(self) -> None:
        """Start the real agent as a process of its own."""
        self._processes.start("agent", self.agent_command("run"))

    def agent_command(self, *arguments: str) -> list[str]:
        """Return the command line of `ovirt-tcp-agent` with this host's configuration."""
        command = [sys.executable, "-m", "ovirt_tcp_plugin.attester.main"]
        command += ["--config-dir", str(self.config_directory)]
        return [*command, *arguments]

    def stop_agent(self) -> None:
        """Stop the agent by SIGTERM."""
        self._processes.stop("agent")

    def kill_agent(self) -> None:
        """End the agent by SIGKILL."""
        self._processes.stop("agent", signal.SIGKILL)

    def freeze_agent(self) -> None:
        """Make the host silent: its agent lives and does nothing."""
        self._processes.send("agent", signal.SIGSTOP)

    def thaw_agent(self) -> None:
        """Have a frozen agent go on."""
        self._processes.send("agent", signal.SIGCONT)

    @property
    def agent_running(self) -> bool:
        """Whether the agent lives; a frozen one does."""
        return self._processes.running("agent")

    def agent_log(self) -> str:
        """Return the end of the agent's log."""
        return self._processes.log_tail("agent")

    def status(self) -> Mapping[str, Any]:
        """Return what the agent keeps for `ovirt-tcp-agent status`, empty for nothing."""
        return dict(AgentState(self.state_directory).load_status() or {})

    def forget_enrolment(self) -> None:
        """Lose the agent's state, as a reinstallation of the disk does; the TPM stays."""
        shutil.rmtree(self.state_directory)
        self.state_directory.mkdir(mode=0o700)

    # Its chip

    def connect(self) -> launch.AnyTpm:
        """Return a connection to the host's TPM.

        The agent must not run, since a software TPM serves one connection at a time.
        """
        return self.swtpm.connect()

    def power_cut(self) -> None:
        """Take the power away without a shutdown; `start` and `boot` follow."""
        self.kill_agent()
        self.swtpm.stop()
