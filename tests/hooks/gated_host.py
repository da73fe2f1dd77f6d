# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A host with the gate, and a signed verdict for its boot."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.lab import vdsm
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.ear import SignedResult
from ovirt_tcp_plugin.messages.result import Level

ROOT = Path(__file__).parents[2]

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
VM = "11111111-2222-3333-4444-555555555555"
LIFETIME_MS = 600_000
NOW_S = 1_700_000_000


class Host:
    """A host with the gate at its three points; a test spoils what it is about."""

    def __init__(self, directory: Path) -> None:
        self.hooks, self.keys = directory / "hooks", directory / "verdict-keys"
        self.verdict, self.config = directory / "verdict.jwt", directory / "gate.conf"
        self.engine = directory / "hosted-engine.conf"
        self.clock = Clock()
        self.keys.mkdir(mode=0o755)
        self.trust(KEY)
        self.write_config("scope = all_vms")
        self.sign()
        self.install()

    def install(self, **places: object) -> None:
        """Install the gate with the places of this host, or others."""
        own = {
            "CONFIG": str(self.config),
            "KEYS": str(self.keys),
            "VERDICT": str(self.verdict),
            "HOSTED_ENGINE": str(self.engine),
            "OWNER": os.geteuid(),
            **places,
        }
        for point in vdsm.GATE_POINTS:
            vdsm.install(
                ROOT / "hooks" / "vdsm" / point / "50_ovirt_tcp_gate.py", self.hooks, point, **own
            )

    def trust(self, key: ec.EllipticCurvePrivateKey, name: str = "one.pem") -> None:
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        (self.keys / name).write_bytes(key.public_key().public_bytes(encoding, form))
        (self.keys / name).chmod(0o644)

    def write_config(self, content: str) -> None:
        self.config.write_text(content + "\n")
        self.config.chmod(0o644)

    def sign(
        self, key: ec.EllipticCurvePrivateKey = KEY, age_ms: int = 1000, **changes: Any
    ) -> str:
        """Keep a verdict that is good but for the changes."""
        quoted_ms = self.clock.now_ms() - age_ms
        good = SignedResult(
            "host-1", "ab" * 32, Level.TRUSTED, self.clock.boot_id, quoted_ms, LIFETIME_MS
        )
        token = ear.sign(dataclasses.replace(good, **changes), key, NOW_S)
        self.verdict.write_text(token + "\n")
        return token

    def start(
        self, point: str = "before_vm_start", vm_id: str = VM, **properties: str
    ) -> vdsm.HookOutcome:
        return vdsm.run_hooks(self.hooks, point, "<domain/>", vm_id, properties)

    def refusal(self, **how: Any) -> str:
        """Return the code by which a VM is refused."""
        outcome = self.start(**how)
        assert outcome.statuses == (2,), outcome
        found = re.fullmatch(r"ovirt-tcp: refused \(([a-z_]+)\): [^\n]+", outcome.failure)
        assert found, outcome.failure
        return found[1]
