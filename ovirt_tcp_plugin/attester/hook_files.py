# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the agent leaves for the VDSM hooks of its host.

It leaves the signed verdict for the gate, and a summary for people.

Neither is a secret, so everybody may read them; the gate believes the signature, not the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import evidence
from ovirt_tcp_plugin.messages.result import AttestationResult

VERDICT_FILE = "verdict.jwt"
SUMMARY_FILE = "summary.json"


class HookFiles:
    """A directory of this boot, such as one on tmpfs. Each file in it is whole or absent."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep_verdict(self, signed: str) -> None:
        """Keep the newest verdict. Raises Unavailable."""
        self._write(VERDICT_FILE, signed.encode("ascii", "replace") + b"\n")

    def keep_summary(self, summary: dict[str, Any]) -> None:
        """Keep what `after_get_caps` tells. Raises Unavailable."""
        self._write(SUMMARY_FILE, json.dumps(summary).encode("ascii"))

    def _write(self, name: str, content: bytes) -> None:
        path = self._directory / name
        fresh = self._directory / f"{name}.new"
        try:
            fresh.unlink(missing_ok=True)
            with open(fresh, "xb", opener=_open_readable) as file:
                os.fchmod(file.fileno(), 0o644)  # whatever the umask
                file.write(content)
            fresh.replace(path)
        except OSError as e:
            raise errors.Unavailable(f"file {path}", e.strerror or str(e)) from e


def summarize(
    measured: evidence.Evidence, outcome: AttestationResult, bank: str, launch: Mapping[int, bytes]
) -> dict[str, Any]:
    """Return what was measured of this boot, for people.

    Args:
        bank, launch: PCR 17, 18 and 19 of this bank as they were just read; nobody signed for them.
    """
    # Without a launch, PCR 17 is all zeros or all ones.
    launched = not set(launch.get(17, b"")) <= {0x00, 0xFF}
    return {
        "tpm": outcome.tpm_family,
        "txt_launch": launched,
        "bank": bank,
        "pcrs": {str(index): value.hex() for index, value in sorted(launch.items())},
        "logs": {kind: hashlib.sha256(log).hexdigest() for kind, log in measured.logs.items()},
        "agent_version": measured.agent_version,
        "level": outcome.level.value,
        "boot_id": measured.boot_id,
        "boottime_ms": measured.boottime_ms,
        "lifetime_ms": outcome.lifetime_ms,
    }


def _open_readable(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)
