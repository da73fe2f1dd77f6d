# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Software TPMs (swtpm): a vendor that makes and certifies them, and processes that run them.

Each is a real TPM implementation with an EK of its own; only the chip around it is missing. A
control channel does what a platform does to a chip: reset, locality, the D-RTM's hash sequence.
Those of family 1.2 are in `swtpm12.py`.
"""

from __future__ import annotations

import concurrent.futures
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional, TypeVar

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.tpm import Tpm
from ovirt_tcp_plugin.attester.transport import Transport
from ovirt_tcp_plugin.lab.processes import Processes, find_program

STATE_FILES = "tpm*-00.permall"
BANKS = ("sha1", "sha256")
# Making the vendor's authorities and an RSA key takes 1.2 s, on a busy machine some more.
SETUP_WITHIN_S = 60
CONTROL_WITHIN_S = 10.0
CONNECT_WITHIN_S = 10.0
COMMAND_WITHIN_S = 30.0
# sun_path holds 108 bytes; swtpm appends nothing, the kernel needs the final zero.
MAX_SOCKET_PATH = 107

# Control commands of swtpm (swtpm_ioctls.h).
_INIT = 2
_SHUTDOWN = 3
_SET_LOCALITY = 5
_HASH_START = 6
_HASH_DATA = 7
_HASH_END = 8
_STOP = 14
_HASH_CHUNK = 4096


class Vendor:
    """A TPM vendor: a root and an issuing authority, and the TPMs it makes.

    Args:
        directory: where its authorities live; made if missing, used again if it is there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        authority = {
            "statedir": directory,
            "signingkey": directory / "signkey.pem",
            "issuercert": directory / "issuercert.pem",
            "certserial": directory / "certserial",
        }
        setup = {
            "create_certs_tool": find_program("swtpm_localca"),
            "create_certs_tool_config": directory / "localca.conf",
            "create_certs_tool_options": directory / "localca.options",
            "active_pcr_banks": ",".join(BANKS),
        }
        _write_settings(directory / "localca.conf", authority)
        _write_settings(directory / "setup.conf", setup)
        (directory / "localca.options").write_text(
            "--platform-manufacturer ovirt-tcp\n--platform-version 1\n--platform-model lab\n"
        )

    @property
    def authorities(self) -> bytes:
        """The root's and the issuer's certificates, PEM. They are there once a TPM was made."""
        root = (self._directory / "swtpm-localca-rootca-cert.pem").read_bytes()
        return root + (self._directory / "issuercert.pem").read_bytes()

    def manufacture(self, states: Sequence[Path]) -> None:
        """Make a TPM with RSA-2048 and P-384 EK certificates in each directory, two at a time.

        Raises:
            Unavailable: swtpm_setup failed; with its output.
        """
        rest = list(states)
        if rest and not (self._directory / "issuercert.pem").exists():
            self._make(rest.pop(0))  # alone, since it makes the authorities
        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(self._make, rest))

    def _make(self, state: Path) -> None:
        self.set_up(state, ["--tpm2", "--pcr-banks", ",".join(BANKS)])

    def set_up(self, state: Path, options: Sequence[str]) -> None:
        """Make one TPM by swtpm_setup with these options. Raises Unavailable; with its output."""
        state.mkdir(parents=True, exist_ok=True)
        command = [find_program("swtpm_setup"), "--tpm-state", str(state)]
        command += ["--create-ek-cert", "--lock-nvram", "--overwrite", "--vmid", state.name]
        command += ["--config", str(self._directory / "setup.conf"), *options]
        try:
            process = subprocess.run(
                command, capture_output=True, timeout=SETUP_WITHIN_S, check=False
            )
        except subprocess.TimeoutExpired as e:
            raise errors.Unavailable("swtpm_setup", f"not done within {SETUP_WITHIN_S} s") from e
        if process.returncode != 0:
            output = (process.stdout + process.stderr).decode("utf-8", "replace").strip()
            raise errors.Unavailable("swtpm_setup", output or f"exit code {process.returncode}")


def _write_settings(path: Path, settings: Mapping[str, object]) -> None:
    lines = [f"{name} = {value}\n" for name, value in settings.items()]
    path.write_text("".join(lines))


def clone(original: Path, state: Path) -> None:
    """Copy a TPM that does not run. The copy is the *same* TPM: it has the same EK."""
    state.mkdir(parents=True, exist_ok=True)
    for file in original.glob(STATE_FILES):
        shutil.copy(file, state)


class Control:
    """The control channel of a running swtpm: what a platform does to its chip."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def reset(self) -> None:
        """Power-cycle the TPM; TPM2_Startup must follow."""
        self._command(_INIT, struct.pack(">I", 0))

    def shutdown(self) -> None:
        """End the process."""
        self._command(_SHUTDOWN)

    def stop(self) -> None:
        """Stop the TPM but not its process; `reset` starts it again."""
        self._command(_STOP)

    def set_locality(self, locality: int) -> None:
        """Have the commands that follow come from that locality, 0 to 4."""
        self._command(_SET_LOCALITY, bytes([locality]))

    def measure_launch(self, data: bytes) -> None:
        """Do _TPM_Hash_Start, _Data, _End.

        PCR 17-22 become zero, then PCR 17 is extended by H(data).
        """
        self._command(_HASH_START)
        for start in range(0, len(data), _HASH_CHUNK):
            chunk = data[start : start + _HASH_CHUNK]
            self._command(_HASH_DATA, struct.pack(">I", len(chunk)) + chunk)
        self._command(_HASH_END)

    def _command(self, number: int, payload: bytes = b"") -> None:
        """Send one command. Raises Unavailable when swtpm refuses or does not answer."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(CONTROL_WITHIN_S)
                connection.connect(str(self._path))
                connection.sendall(struct.pack(">I", number) + payload)
                answer = connection.recv(4)
        except OSError as e:
            raise errors.Unavailable("swtpm control channel", e.strerror or str(e)) from e
        if answer != bytes(4):
            reason = f"command {number} failed: {answer.hex() or 'no answer'}"
            raise errors.Unavailable("swtpm control channel", reason)


AnyChip = TypeVar("AnyChip", bound="Chip")


class Chip:
    """A running swtpm. Start it from a thread that stays: it dies with the thread that started it.

    Args:
        state: directory with the TPM's state; an empty one is a new TPM without EK certificate.
        options: which family of TPM it is.
    """

    def __init__(self, state: Path, options: Sequence[str]) -> None:
        self._options = options
        self.state = state
        state.mkdir(parents=True, exist_ok=True)
        self._sockets: Optional[Path] = None
        self._processes = Processes(state)

    def __enter__(self: AnyChip) -> AnyChip:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; it answers some milliseconds later, and `connect` waits for it."""
        # Not beside the state: a deep directory would not fit into a socket address. A restart has
        # the same address, so that an agent finds its TPM again; mkdir refuses a directory that
        # somebody else put there.
        if self._sockets is None:
            self._sockets = Path(tempfile.mkdtemp(prefix="tpm-"))
        else:
            self._sockets.mkdir(mode=0o700)
        if len(str(self._sockets / "control")) > MAX_SOCKET_PATH:
            reason = f"{self._sockets} is too long for a socket, set a shorter TMPDIR"
            raise errors.Unavailable("swtpm", reason)
        command = [find_program("swtpm"), "socket", *self._options]
        command += ["--tpmstate", f"dir={self.state}"]
        command += ["--server", f"type=unixio,path={self._sockets / 'data'}"]
        command += ["--ctrl", f"type=unixio,path={self._sockets / 'control'}"]
        command += ["--flags", "not-need-init,startup-clear"]
        self._processes.start("swtpm", command)

    def stop(self) -> None:
        """End the process and remove its sockets."""
        self._processes.stop_all()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def address(self) -> str:
        """Where the TPM is, as `attester` takes it. Raises Unavailable when it does not run."""
        return f"unix:{self._directory() / 'data'}"

    @property
    def pid(self) -> int:
        """Process id."""
        return self._processes.pid("swtpm")

    @property
    def control(self) -> Control:
        """Its control channel."""
        return Control(self._directory() / "control")

    def dial(self, timeout_s: float) -> Transport:
        """Return a connection to it. It serves one at a time; close it when done."""
        transport = Transport(self.address, timeout_s, CONNECT_WITHIN_S)
        transport.connect()
        return transport

    def _directory(self) -> Path:
        if self._sockets is None or not self._processes.running("swtpm"):
            raise errors.Unavailable("swtpm", f"the one of {self.state} does not run")
        return self._sockets


class Swtpm(Chip):
    """A running TPM 2.0."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, ["--tpm2"])

    def connect(self, timeout_s: float = COMMAND_WITHIN_S) -> Tpm:
        """Return a TPM connected to it. It serves one connection at a time; close it when done."""
        return Tpm(self.dial(timeout_s))
