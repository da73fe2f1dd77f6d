# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Everything for which the gate refuses a VM, with the code of the refusal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.result import Level
from tests.hooks.gated_host import LIFETIME_MS, OTHER_KEY, Host


def missing(host: Host) -> None:
    host.verdict.unlink()


def garbage(host: Host) -> None:
    host.verdict.write_bytes(os.urandom(700))


def empty(host: Host) -> None:
    host.verdict.write_bytes(b"")


def cut(host: Host) -> None:
    host.verdict.write_text(host.verdict.read_text()[:-20])


def huge(host: Host) -> None:
    host.verdict.write_bytes(b"x" * 10_000_000)


def a_pipe(host: Host) -> None:
    host.verdict.unlink()
    os.mkfifo(host.verdict)


def a_directory(host: Host) -> None:
    host.verdict.unlink()
    host.verdict.mkdir()


def unsigned(host: Host) -> None:
    header, claims, _ = host.sign().split(".")
    host.verdict.write_text(f"{encoded_part({'alg': 'none'})}.{claims}.")


def nested(host: Host) -> None:
    host.verdict.write_text(f"{'W1tb' * 900}.e30.AA")


def zeros(host: Host) -> None:
    """r = s = 0, by which some verifiers took any content (CVE-2022-21449)."""
    header, claims, _ = host.sign(OTHER_KEY).split(".")
    host.verdict.write_text(f"{header}.{claims}.{'A' * 86}")


def mended(host: Host) -> None:
    """The claims of a good verdict under the signature of one that is not."""
    good = host.sign().split(".")
    bad = host.sign(level=Level.UNTRUSTED).split(".")
    host.verdict.write_text(f"{bad[0]}.{good[1]}.{bad[2]}")


def encoded_part(value: object) -> str:
    return ear._base64url(json.dumps(value).encode())


def no_keys(host: Host) -> None:
    (host.keys / "one.pem").unlink()


def no_key_directory(host: Host) -> None:
    no_keys(host)
    host.keys.rmdir()


def writable_key(host: Host) -> None:
    (host.keys / "one.pem").chmod(0o666)


def writable_config(host: Host) -> None:
    host.config.chmod(0o622)


def no_config(host: Host) -> None:
    host.config.unlink()


def broken_key(host: Host) -> None:
    (host.keys / "one.pem").write_text("-----BEGIN PUBLIC KEY-----\nrubbish\n")


FAULTS: list[tuple[Callable[[Host], object], str]] = [
    (missing, "no_verdict"),
    (garbage, "malformed_verdict"),
    (empty, "malformed_verdict"),
    (cut, "malformed_verdict"),
    (huge, "malformed_verdict"),
    (a_pipe, "malformed_verdict"),
    (a_directory, "malformed_verdict"),
    (unsigned, "malformed_verdict"),
    (nested, "malformed_verdict"),
    (zeros, "bad_signature"),
    (mended, "bad_signature"),
    (lambda host: host.sign(OTHER_KEY), "bad_signature"),
    (lambda host: host.sign(age_ms=LIFETIME_MS + 1000), "verdict_ended"),
    (lambda host: host.sign(lifetime_ms=0), "verdict_ended"),
    (lambda host: host.sign(age_ms=-60_000), "clock"),
    (lambda host: host.sign(boot_id="c0ffee00-0000-4000-8000-000000000001"), "other_boot"),
    (lambda host: host.sign(boot_id=""), "other_boot"),
    (lambda host: host.sign(level=Level.UNTRUSTED), "not_trusted"),
    (lambda host: host.sign(level=Level.UNKNOWN), "not_trusted"),
    (lambda host: host.write_config("host = host-2"), "other_host"),
    (lambda host: host.write_config("scope = some_vms"), "gate_config"),
    (lambda host: host.write_config("scpoe = all_vms"), "gate_config"),
    (lambda host: host.write_config("nonsense"), "gate_config"),
    (lambda host: host.config.write_bytes(b"\xff\xfe"), "gate_config"),
    (no_config, "gate_config"),
    (writable_config, "gate_config"),
    (no_keys, "no_keys"),
    (no_key_directory, "no_keys"),
    (writable_key, "no_keys"),
    (broken_key, "no_openssl"),
    (lambda host: host.install(OPENSSL="/usr/bin/no-openssl"), "no_openssl"),
    (lambda host: host.install(OPENSSL="/usr/bin/false"), "no_openssl"),
    # Exit status 0 alone is not the word of openssl.
    (lambda host: host.install(OPENSSL="/usr/bin/true"), "no_openssl"),
    (lambda host: host.install(OWNER=os.geteuid() + 1), "gate_config"),
    (lambda host: host.install(BOOT_ID="/no/such/file"), "no_boot_id"),
]
