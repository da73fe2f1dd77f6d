# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The simulated launch against the TPM's own rules, tboot's own tools and tpm2_eventlog."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.tpm import TpmError
from ovirt_tcp_plugin.lab import firmware, launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.lab.swtpm import BANKS
from ovirt_tcp_plugin.messages import eventlog
from tests.conftest import TpmPool

QUOTED = tuple(range(24))


@pytest.fixture(scope="session")
def events(tpm_pool: TpmPool) -> tuple[eventlog.Event, ...]:
    return launch.events(tpm_pool.images)


@pytest.mark.parametrize("measured_launch", [True, False])
@pytest.mark.parametrize("bank", BANKS)
def test_every_pcr_is_what_the_logs_replay_to(
    measured_launch: bool, bank: str, make_host: Callable[..., LabHost]
) -> None:
    host = make_host()
    host.boot(measured_launch=measured_launch)
    logged = eventlog.parse(host.firmware_log_file.read_bytes())
    if measured_launch:
        logged += eventlog.parse(host.txt_log_file.read_bytes())

    tpm = host.connect()
    values = tpm.read_pcrs({bank: QUOTED})[bank]
    tpm.close()

    assert eventlog.replay(logged, bank, QUOTED) == values


def test_tpm2_eventlog_reads_the_same(
    events: tuple[eventlog.Event, ...], tpm_pool: TpmPool, tmp_path: Path
) -> None:
    logged = (*firmware.events(Machine(), tpm_pool.images), *events)
    (tmp_path / "log").write_bytes(launch.log_of(logged))

    done = subprocess.run(
        ["tpm2_eventlog", tmp_path / "log"], capture_output=True, timeout=20, check=True
    )

    read = yaml.safe_load(done.stdout)
    assert len(read["events"]) == len(logged) + 1
    # It starts every PCR at zero, and knows nothing of a launch: so do PCR 0-14 and, after
    # HASH_START, 17 and 18.
    for bank in BANKS:
        replayed = eventlog.replay(logged, bank, [*range(10), 14, 17, 18])
        seen = {
            int(index): f"{value:0{2 * len(replayed[0])}x}"
            for index, value in read["pcrs"][bank].items()
        }
        assert seen == {index: value.hex() for index, value in replayed.items()}


def test_tpm2_eventlog_reads_the_same_of_the_older_format(
    tpm_pool: TpmPool, tmp_path: Path
) -> None:
    logged = firmware.events(Machine(), tpm_pool.images, ["sha1"])
    (tmp_path / "log").write_bytes(launch.log_of(logged, ["sha1"]))

    done = subprocess.run(
        ["tpm2_eventlog", tmp_path / "log"], capture_output=True, timeout=20, check=True
    )

    # Its events are no list in this format, so that YAML has only the last one.
    digests = re.findall(r'Digest: "([0-9a-f]{40})"', done.stdout.decode())
    assert digests == [
        event.digests["sha1"].hex() for event in eventlog.parse((tmp_path / "log").read_bytes())
    ]
    read = yaml.safe_load(done.stdout)
    seen = {int(index): f"{value:040x}" for index, value in read["pcrs"]["sha1"].items()}
    assert seen == {
        index: value.hex()
        for index, value in eventlog.replay(logged, "sha1", [*range(10), 14]).items()
    }


def test_a_module_is_hashed_as_tb_polgen_does(tmp_path: Path) -> None:
    image, policy = tmp_path / "vmlinuz", tmp_path / "policy"
    image.write_bytes(b"kernel")
    for command in (
        ["--create", "--type", "nonfatal", "--alg", "sha256"],
        [
            "--add",
            "--num",
            "0",
            "--pcr",
            "none",
            "--hash",
            "image",
            "--cmdline",
            "ro quiet",
            "--image",
            image,
        ],
    ):
        subprocess.run(["tb_polgen", *command, policy], capture_output=True, timeout=20, check=True)

    shown = subprocess.run(
        ["tb_polgen", "--show", policy], capture_output=True, text=True, timeout=20, check=True
    )

    digest = launch.module_hash("ro quiet", image, "sha256").hex()
    assert digest in shown.stdout.replace(" ", "").replace("\n", "")


def test_the_order_is_that_of_a_real_launch(events: tuple[eventlog.Event, ...]) -> None:
    kinds = {pcr: [event.type for event in events if event.pcr == pcr] for pcr in (17, 18)}

    assert kinds[17] == [
        0x402,
        0x40A,
        0x40B,
        0x40C,
        0x412,
        0x40E,
        0x40F,
        0x404,
        0x414,
        0x501,
        0x501,
        0x501,
    ]
    assert kinds[18] == [0x410, 0x40B, 0x40F, 0x40C, 0x413, 0x414, 0x501]
    assert all((list(event.digests) == ["sha256"]) is (event.type == 0x501) for event in events)


def differing(good: launch.Images, other: launch.Images) -> list[int]:
    pairs = zip(launch.events(good), launch.events(other))
    return [number for number, (left, right) in enumerate(pairs) if left != right]


def test_one_bit_of_tboot_shows_in_one_event(tpm_pool: TpmPool, tmp_path: Path) -> None:
    (changed,) = differing(tpm_pool.images, launch.tamper_tboot(tpm_pool.images, tmp_path))

    assert launch.events(tpm_pool.images)[changed].type == eventlog.MLE_HASH


def test_one_bit_of_the_kernel_shows_in_one_event(tpm_pool: TpmPool, tmp_path: Path) -> None:
    (changed,) = differing(tpm_pool.images, launch.tamper_kernel(tpm_pool.images, tmp_path))

    assert launch.events(tpm_pool.images)[changed].type == eventlog.TBOOT_MODULE


@pytest.mark.parametrize("option", ["tboot_cmdline", "kernel_cmdline", "initrd_cmdline"])
def test_each_command_line_is_measured(option: str, tpm_pool: TpmPool) -> None:
    assert (
        len(differing(tpm_pool.images, dataclasses.replace(tpm_pool.images, **{option: "x"}))) == 1
    )


def test_the_same_version_is_the_same_everywhere(tpm_pool: TpmPool, tmp_path: Path) -> None:
    assert differing(tpm_pool.images, launch.make_images(tmp_path)) == []
    assert len(differing(tpm_pool.images, launch.make_images(tmp_path, "5.14.0-611.el9"))) == 2


def test_software_cannot_repeat_a_launch(
    make_host: Callable[..., LabHost], events: tuple[eventlog.Event, ...]
) -> None:
    """What root could do without TXT, at locality 0: the TPM refuses."""
    host = make_host()
    host.boot(measured_launch=False)
    tpm = host.connect()

    with pytest.raises(TpmError, match="0x907"):
        launch.extend(tpm, events[1])
    tpm.close()


def test_a_failed_launch_leaves_locality_zero(make_host: Callable[..., LabHost]) -> None:
    host = make_host()
    host.boot(measured_launch=False)
    tpm = host.connect()
    start = eventlog.Event(17, eventlog.HASH_START, {}, b"x")
    impossible = eventlog.Event(17, 0, {"sha256": bytes(5)}, b"")

    with pytest.raises(TpmError):
        launch.launch(host.swtpm, tpm, [start, impossible])

    with pytest.raises(TpmError, match="0x907"):
        launch.extend(tpm, eventlog.Event(17, 0, {"sha256": bytes(32)}, b""))
    tpm.close()


def test_says_that_tboot_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "TBOOT", tmp_path / "tboot.gz")

    with pytest.raises(errors.Unavailable, match=r"tboot\.gz is unavailable: it is not installed"):
        launch.make_images(tmp_path)


def test_says_that_an_image_is_no_tboot(tpm_pool: TpmPool, tmp_path: Path) -> None:
    (tmp_path / "tboot").write_bytes(b"no MLE")

    with pytest.raises(errors.Unavailable, match="lcp2_mlehash"):
        launch.events(dataclasses.replace(tpm_pool.images, tboot=tmp_path / "tboot"))


def test_a_truncated_log_is_none(events: tuple[eventlog.Event, ...]) -> None:
    with pytest.raises(errors.InvalidMessage, match="malformed event log"):
        eventlog.parse(launch.truncate(launch.log_of(events)))
