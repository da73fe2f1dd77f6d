#!/usr/bin/python3 -IS
# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""VDSM hooks before_vm_start, before_vm_migrate_destination and before_vm_dehibernate: the gate.

A VM that needs trust starts, arrives or resumes on this host only while a verdict holds that the
attestation server signed for this very boot. Whatever is missing, broken or slow, the VM does not
start, and stderr says why in one sentence.

Needs nothing but the standard library and openssl, and takes from the environment only what VDSM
says of the VM: a VM's custom properties are in there, too, under names of their makers' choice.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping

# Importing typing would make every start of a VM wait some milliseconds longer; type checkers take
# this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

CONFIG = "/etc/ovirt-tcp/gate.conf"
KEYS = "/etc/ovirt-tcp/verdict-keys"
VERDICT = "/run/ovirt-tcp/agent/verdict.jwt"
HOSTED_ENGINE = "/etc/ovirt-hosted-engine/hosted-engine.conf"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
OPENSSL = "/usr/bin/openssl"
# Who must own configuration and keys.
OWNER = 0

# VDSM waits for a hook without a limit, starts four VMs at a time, and has 30 s for a migration to
# arrive. A decision takes 0.1 s on an idle host; 10 s is for one whose cores are all busy.
WITHIN_S = 10
# For each key, so that a hanging openssl is named before the alarm rings.
OPENSSL_WITHIN_S = 4
# A verdict has some 800 bytes, a public key 180.
MAX_VERDICT_SIZE = 4096
MAX_KEY_SIZE = 4096
MAX_CONFIG_SIZE = 64 * 1024
# One that signs now, and one for the time of a rotation: this many are tried.
MAX_KEYS = 2

# Exit status by which a hook refuses and ends the operation.
REFUSED = 2
SCOPES = ("all_vms", "marked_vms")
MARK = "trusted_host_flag"
# Of the claims that are ours; the others are for other readers.
PREFIX = "ovirt-tcp."


class StartRefused(Exception):
    """The VM may not run here. `code` is stable, `reason` a plain sentence without its end."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def decide(environment: Mapping[str, str]) -> str:
    """Return what to tell of a VM that may run here; mostly nothing.

    Args:
        environment: as VDSM gives it to a hook.

    Raises:
        StartRefused: it may not.
    """
    vm_id = environment.get("vmId", "").lower()
    if vm_id and vm_id == hosted_engine_vm():
        return f"VM {vm_id} is exempt: it is the engine's own"
    options = read_config()
    if vm_id and vm_id in options["exempt_vms"].lower().split():
        return f"VM {vm_id} is exempt by gate.conf"
    if options["scope"] == "marked_vms" and environment.get(MARK, "").lower() in ("", "false"):
        return ""
    check(read_verdict(), options["host"].lower())
    return surplus_keys()


def hosted_engine_vm() -> str:
    """Return the id of the VM that carries the engine; empty on hosts that cannot run it."""
    try:
        lines = read(HOSTED_ENGINE, MAX_CONFIG_SIZE).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        if line.startswith("vmid="):
            _, _, value = line.partition("=")
            return value.strip().lower()
    return ""


def read_config() -> Mapping[str, str]:
    """Return the options of gate.conf, `key = value` line by line.

    Raises StartRefused (gate_config).
    """
    options = {"scope": "all_vms", "exempt_vms": "", "host": ""}
    try:
        lines = read(CONFIG, MAX_CONFIG_SIZE, OWNER).decode("utf-8").splitlines()
    except (OSError, ValueError) as e:
        raise StartRefused("gate_config", f"{CONFIG} cannot be used: {described(e)}") from e
    for line in lines:
        option, _, _ = line.partition("#")
        if option.strip():
            name, equals, value = option.partition("=")
            name = name.strip()
            if not equals or name not in options:
                reason = f"{CONFIG} has a line that is no option: {name[:40]!r}"
                raise StartRefused("gate_config", reason)
            options[name] = value.strip()
    if options["scope"] not in SCOPES:
        reason = f"{CONFIG} has a scope that is neither {' nor '.join(SCOPES)}"
        raise StartRefused("gate_config", reason)
    return options


def read_verdict() -> Mapping[str, Any]:
    """Return what the attestation server signed of this host. Raises StartRefused."""
    token = read_token()
    signed, _, signature = token.rpartition(b".")
    header, _, claims = signed.partition(b".")
    check_signature(header, signed, signature)
    # All that the claims say counts only now.
    submodules = members(claims).get("submods", {})
    host = submodules.get("host") if isinstance(submodules, dict) else None
    if not isinstance(host, dict):
        raise StartRefused("malformed_verdict", "the verdict tells of no host")
    verdict = {}
    for name, value in host.items():
        if name.startswith(PREFIX):
            verdict[name[len(PREFIX) :]] = value
    return verdict


def read_token() -> bytes:
    """Return the verdict as the agent left it, a JWT. Raises StartRefused."""
    try:
        return read(VERDICT, MAX_VERDICT_SIZE).strip()
    except FileNotFoundError as e:
        reason = (
            "this host has no verdict of the attestation server: see that ovirt-tcp-agent runs and "
            "reports"
        )
        raise StartRefused("no_verdict", reason) from e
    except (OSError, ValueError) as e:
        raise StartRefused("malformed_verdict", f"{VERDICT} cannot be used: {described(e)}") from e


def check_signature(header: bytes, signed: bytes, signature: bytes) -> None:
    """Return if one of our keys made the signature of a JWT. Raises StartRefused.

    A key file that cannot be used matters only when no other made it.
    """
    names = members(header)
    if names.get("alg") != "ES256":
        raise StartRefused("malformed_verdict", "the verdict is not signed with ES256")
    der = encode_signature(_decode(signature))
    refusal = StartRefused("bad_signature", f"no key in {KEYS} made the verdict's signature")
    for path in keys_for(names.get("kid")):
        try:
            if signed_by(read_key(path), der, signed):
                return
        except StartRefused as e:
            refusal = e
    raise refusal


def check(verdict: Mapping[str, Any], expected_host: str) -> None:
    """Return if a verdict says now that this boot of this host is trusted. Raises StartRefused."""
    born_ms = verdict.get("boottime_ms")
    lifetime_ms = verdict.get("lifetime_ms")
    if type(born_ms) is not int or type(lifetime_ms) is not int:
        raise StartRefused("malformed_verdict", "the verdict has no time")
    if expected_host and verdict.get("host") != expected_host:
        raise StartRefused("other_host", f"the verdict is of another host than {expected_host}")
    check_boot(verdict)
    check_age(born_ms, lifetime_ms)
    if verdict.get("level") != "trusted":
        level = str(verdict.get("level"))[:20]
        raise StartRefused(
            "not_trusted",
            f"the attestation server calls this host {level!r}: ovirt-tcp-agent status says why",
        )


def check_boot(verdict: Mapping[str, Any]) -> None:
    """Return if a verdict is of this boot. Raises StartRefused."""
    try:
        boot_id = read(BOOT_ID, 64).decode("ascii").strip()
    except (OSError, ValueError) as e:
        raise StartRefused(
            "no_boot_id", f"the kernel's boot id cannot be read: {described(e)}"
        ) from e
    if not boot_id or verdict.get("boot_id") != boot_id:
        raise StartRefused("other_boot", "the verdict is from before this boot, or of another host")


def check_age(born_ms: int, lifetime_ms: int) -> None:
    """Return if a verdict born at this CLOCK_BOOTTIME has not ended. Raises StartRefused."""
    now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    age_ms = now_ms - born_ms
    if age_ms < 0:
        raise StartRefused("clock", "the verdict is from the future of this host's clock")
    if age_ms > lifetime_ms:
        ended_s = (age_ms - lifetime_ms) // 1000
        raise StartRefused(
            "verdict_ended",
            f"the verdict ended {ended_s} s ago: see that ovirt-tcp-agent runs and reports",
        )


def keys_for(key_id: object) -> list[str]:
    """Return the paths of the keys to try. Raises StartRefused (no_keys).

    The verdict's header names the key that signed it, and `verdict-key export` calls a key's file
    by that name. It only picks one among files that are believed anyway. Where no file bears the
    name, the newest two are tried.
    """
    paths = key_files()
    for path in paths:
        if os.path.basename(path) == f"{key_id}.pem":
            return [path]
    return paths[:MAX_KEYS]


def key_files() -> list[str]:
    """Return the paths of all keys, the newest first. Raises StartRefused (no_keys)."""
    try:
        names = [name for name in os.listdir(KEYS) if name.endswith(".pem")]
    except OSError as e:
        raise StartRefused("no_keys", f"the keys in {KEYS} cannot be used: {described(e)}") from e
    if not names:
        raise StartRefused("no_keys", f"{KEYS} must hold at least one *.pem file")
    paths = [os.path.join(KEYS, name) for name in sorted(names)]
    return sorted(paths, key=modified_ns, reverse=True)


def modified_ns(path: str) -> int:
    """Return when a file was changed; one that was removed meanwhile is older than all others."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0


def surplus_keys() -> str:
    """Return what to say of keys that a rotation left behind; mostly nothing."""
    count = len(key_files())
    if count <= MAX_KEYS:
        return ""
    return (
        f"{KEYS} holds {count} keys: remove those that no longer sign. Only the one that a verdict "
        f"names is tried, or the newest {MAX_KEYS}"
    )


def read_key(path: str) -> bytes:
    """Return a public key that is believed, PEM. Raises StartRefused (no_keys)."""
    try:
        return read(path, MAX_KEY_SIZE, OWNER)
    except (OSError, ValueError) as e:
        raise StartRefused("no_keys", f"the keys in {KEYS} cannot be used: {described(e)}") from e


def signed_by(key: bytes, signature: bytes, content: bytes) -> bool:
    """Return whether a key made a signature. Raises StartRefused (no_openssl)."""
    # By pipes: a full disk does not matter, and the key is the one that was checked.
    key_file = piped(key)
    signature_file = piped(signature)
    command = [OPENSSL, "dgst", "-sha256", "-verify", f"/dev/fd/{key_file}"]
    command += ["-signature", f"/dev/fd/{signature_file}"]
    try:
        done = subprocess.run(
            command,
            input=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=OPENSSL_WITHIN_S,
            env={},
            pass_fds=(key_file, signature_file),
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as e:
        raise StartRefused("no_openssl", f"{OPENSSL} cannot be run: {described(e)}") from e
    finally:
        os.close(key_file)
        os.close(signature_file)
    if done.returncode == 0 and b"Verified OK" in done.stdout:
        return True
    if b"verification failure" in done.stdout.lower():
        return False
    output = done.stdout.decode("utf-8", "replace").strip().splitlines()
    fault = output[0] if output else f"exit status {done.returncode}"
    raise StartRefused("no_openssl", f"{OPENSSL} failed: {fault[:200]}")


def piped(content: bytes) -> int:
    """Return a descriptor that `content`, at most a pipe's 64 KiB, can be read from."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


def encode_signature(raw: bytes) -> bytes:
    """Return a signature of JWS (r and s, RFC 7518, 3.4) as openssl takes it (RFC 3279, 2.2.3).

    Raises StartRefused.
    """
    if len(raw) != 64:
        raise StartRefused("malformed_verdict", "the verdict's signature has not 64 bytes")
    parts = b""
    for number in (raw[:32], raw[32:]):
        minimal = number.lstrip(b"\0") or b"\0"
        if minimal[0] & 0x80:
            minimal = b"\0" + minimal
        parts += bytes([0x02, len(minimal)]) + minimal
    return bytes([0x30, len(parts)]) + parts


def members(part: bytes) -> Mapping[str, Any]:
    """Return the JSON object in a part of a JWT. Raises StartRefused."""
    try:
        value = json.loads(_decode(part))
    except (ValueError, RecursionError) as e:
        raise StartRefused("malformed_verdict", "a part of the verdict is not JSON") from e
    if not isinstance(value, dict):
        raise StartRefused("malformed_verdict", "a part of the verdict is not a JSON object")
    return value


def _decode(part: bytes) -> bytes:
    """Return the bytes of a part of a JWT (RFC 7515, 2). Raises StartRefused."""
    try:
        return base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError as e:
        raise StartRefused("malformed_verdict", "a part of the verdict is not base64url") from e


def read(path: str, max_size: int, owner: int = -1) -> bytes:
    """Return the content of a regular file.

    Args:
        owner: who must own it, and be the only one who may write there; -1: anybody.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too long, no file, or not the owner's alone.
    """
    # Not blocking: nobody need ever write into a pipe in its place.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if owner >= 0 and (status.st_uid != owner or status.st_mode & 0o022):
            raise ValueError(f"{path} must be owned by user {owner}, and writable by nobody else")
        content = file.read(max_size + 1)
    if len(content) > max_size:
        raise ValueError(f"it is longer than {max_size} bytes")
    return content


def described(error: Exception) -> str:
    """Return an error on one line."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())[:300] or type(error).__name__


def say(sentence: str) -> None:
    """Write to stderr, which VDSM logs; nobody waits for it."""
    try:
        os.write(2, f"ovirt-tcp: {sentence}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return


def on_alarm(number: int, frame: object) -> NoReturn:
    """Refuse at once: an exception could be lost in whatever runs now."""
    say(f"refused (timeout): this host did not decide within {WITHIN_S} s")
    os._exit(REFUSED)


def main() -> int:
    """Return the exit status for VDSM: 0, or 2 to refuse."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(WITHIN_S)
    try:
        return answer()
    finally:
        # Python's end takes the handler away: an alarm that rang then would kill this process
        # without a word after it has decided.
        signal.alarm(0)


def answer() -> int:
    """Decide, say what there is to say, and return the exit status."""
    try:
        note = decide(os.environ)
    except StartRefused as e:
        say(f"refused ({e.code}): {e.reason}")
        return REFUSED
    except Exception as e:  # noqa: BLE001 - the outermost edge: whatever happens, the VM does not start
        say(f"refused (gate_failed): {type(e).__name__}: {described(e)}")
        return REFUSED
    if note:
        say(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
