#!/usr/bin/python3 -IS
# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""VDSM hook after_get_caps: add what was measured of this boot.

For `vdsm-client Host getCapabilities`.

For people only: nobody signed for it, and the engine drops members that it does not know. Whatever
is wrong, the capabilities stay as they are; a fault of this hook must not take the host out of
service.
"""

import json
import os
import signal
import stat
import sys
import time

SUMMARY = "/run/ovirt-tcp/agent/summary.json"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MEMBER = "ovirt_tcp"
# Variable with the name of the file that holds the capabilities.
DOCUMENT = "_hook_json"

WITHIN_S = 1
MAX_SUMMARY_SIZE = 64 * 1024
MAX_CAPABILITIES_SIZE = 16 * 1024 * 1024
# The agent writes the summary, and the capabilities must stay readable for the engine whatever an
# agent that somebody took over writes there: only these members are handed on.
TRUSTED = "trusted"
# As the attestation server says of a host whose trusted result ended.
UNKNOWN = "unknown"
TEXTS = ("tpm", "bank", "agent_version", "level")
FLAGS = ("txt_launch",)
# Members that hold texts under these names.
TABLES = {"pcrs": ("17", "18", "19"), "logs": ("txt", "firmware")}
# The longest text, the digest of a PCR in SHA-512, has 128 characters.
MAX_TEXT_LENGTH = 128
# Of JSON's numbers, those that every reader takes exactly.
MAX_NUMBER = 2**53


def read(path, max_size):
    """Return the content of a regular file. Raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is no regular file")
        content = file.read(max_size + 1)
    if len(content) > max_size:
        raise ValueError(f"{path} is longer than {max_size} bytes")
    return content


def summary():
    """Return what the agent left of this boot, with its age. Raises OSError, ValueError."""
    kept = json.loads(read(SUMMARY, MAX_SUMMARY_SIZE))
    if not isinstance(kept, dict):
        raise ValueError(f"{SUMMARY} is no JSON object")  # noqa: TRY004 - a fault of the content
    if kept.get("boot_id") != read(BOOT_ID, 64).decode("ascii").strip():
        raise ValueError(f"{SUMMARY} is of another boot")
    born_ms = kept.get("boottime_ms")
    if type(born_ms) is not int or not 0 <= born_ms <= MAX_NUMBER:
        raise ValueError(f"{SUMMARY} has no time")
    now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    known = known_members(kept)
    known["verdict_age_s"] = (now_ms - born_ms) // 1000
    lifetime_ms = kept.get("lifetime_ms")
    # An agent of an earlier release does not say it.
    ended = type(lifetime_ms) is int and now_ms > born_ms + lifetime_ms
    if ended and known.get("level") == TRUSTED:
        known["level"] = UNKNOWN
    return known


def known_members(kept):
    """Return the members that are handed on; one that is not as the agent writes it is left out."""
    known = texts(kept, TEXTS)
    for name in FLAGS:
        if isinstance(kept.get(name), bool):
            known[name] = kept[name]
    for name, columns in TABLES.items():
        table = kept.get(name)
        if isinstance(table, dict):
            known[name] = texts(table, columns)
    return known


def texts(members, names):
    """Return those of the named members that are short printable ASCII texts."""
    known = {}
    for name in names:
        text = members.get(name)
        if not isinstance(text, str) or len(text) > MAX_TEXT_LENGTH:
            continue
        if text.isascii() and text.isprintable():
            known[name] = text
    return known


def add(path, member):
    """Add a member to the JSON object in a file, whole or not at all.

    Raises OSError, ValueError.
    """
    capabilities = json.loads(read(path, MAX_CAPABILITIES_SIZE))
    if not isinstance(capabilities, dict):
        raise ValueError("the capabilities are no JSON object")  # noqa: TRY004 - a fault of the content
    capabilities[MEMBER] = member
    fresh = f"{path}.ovirt-tcp"
    try:
        # VDSM would fail the whole verb on half a file, which a full disk or the alarm could leave.
        with open(fresh, "x", encoding="utf-8") as file:
            json.dump(capabilities, file)
        os.replace(fresh, path)
    except BaseException:
        if os.path.lexists(fresh):
            os.unlink(fresh)
        raise


def on_alarm(number, frame):
    raise TimeoutError(f"not done within {WITHIN_S} s")


def main():
    """Do it in bounded time, and tell VDSM's log of a fault."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(WITHIN_S)
    try:
        add(os.environ[DOCUMENT], summary())
    except FileNotFoundError as e:
        print(f"ovirt-tcp: no summary: {e}", file=sys.stderr)
    except Exception as e:  # noqa: BLE001 - the outermost edge: the verb goes on, whatever happens here
        print(f"ovirt-tcp: no summary: {type(e).__name__}: {e}", file=sys.stderr)
    finally:
        # Python's end takes the handler away: an alarm that rang then would kill this process.
        signal.alarm(0)


if __name__ == "__main__":
    main()
