# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine hooks.

Loaded by path from a directory that nobody else can write, or the broker does not start.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import hooks
from ovirt_tcp_plugin.broker.hooks import HookEvent

SHIPPED = Path(__file__).parents[2] / "hooks" / "engine"


class Recorder:
    """A broker that notes what hooks ask it for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def attest_in_stages(self) -> None:
        self.asked.append("stages")

    def attest_host(self, host_id: str) -> None:
        self.asked.append(host_id)

    def warn(self, event: HookEvent) -> None:
        self.asked.append(event.fault)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    copied = tmp_path / "engine"
    copied.mkdir(mode=0o755)
    for name in hooks.NAMES:
        shutil.copyfile(SHIPPED / f"{name}.py", copied / f"{name}.py")
        (copied / f"{name}.py").chmod(0o644)
    return copied


def faults(directory: Path) -> str:
    with pytest.raises(errors.InvalidConfig) as caught:
        hooks.load(directory)
    return str(caught.value)


def test_each_engine_event_has_its_file(directory: Path) -> None:
    assert (
        set(hooks.load(directory))
        == {path.stem for path in SHIPPED.glob("*.py")}
        == set(hooks.NAMES)
    )


def test_the_start_attests_in_stages(directory: Path) -> None:
    broker = Recorder()
    hooks.load(directory)["backend_initialize"](HookEvent("backend_initialize"), broker)
    assert broker.asked == ["stages"]


@pytest.mark.parametrize("name", sorted(hooks.OF_VMS))
def test_what_is_wrong_with_a_vm_is_told(directory: Path, name: str) -> None:
    broker = Recorder()
    hooks.load(directory)[name](
        HookEvent(name, vm_id="vm-id", code="vm_left_trust", fault="it left"), broker
    )
    assert broker.asked == ["it left"]


def test_a_host_that_came_up_is_attested(directory: Path) -> None:
    broker = Recorder()
    hooks.load(directory)["init_vds_on_up"](HookEvent("init_vds_on_up", "host-id"), broker)
    assert broker.asked == ["host-id"]


def test_a_missing_one_stops_the_start(directory: Path) -> None:
    (directory / "init_vds_on_up.py").unlink()
    assert "init_vds_on_up.py: No such file" in faults(directory)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("def handle(event, broker:", "SyntaxError"),
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("", "AttributeError"),
        ("handle = 3", "handle is not a function"),
    ],
)
def test_a_failing_one_stops_the_start(directory: Path, content: str, fault: str) -> None:
    (directory / "init_vds_on_up.py").write_text(content, encoding="utf-8")
    assert fault in faults(directory)


def test_all_faults_are_named_at_once(directory: Path) -> None:
    for name in hooks.NAMES:
        (directory / f"{name}.py").write_text("raise RuntimeError", encoding="utf-8")
    assert all(name in faults(directory) for name in hooks.NAMES)


@pytest.mark.parametrize("mode", [0o664, 0o666, 0o646])
def test_a_file_that_others_can_write_stops_the_start(directory: Path, mode: int) -> None:
    (directory / "init_vds_on_up.py").chmod(mode)
    assert "can be written by group or others" in faults(directory)


def test_a_directory_that_others_can_write_stops_the_start(directory: Path) -> None:
    directory.chmod(0o777)
    assert "can be written by group or others" in faults(directory)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["", "init_vds_on_up.py"])
def test_one_of_another_user_stops_the_start(directory: Path, what: str) -> None:
    os.chown(directory / what, 12345, -1)
    assert "belongs to another user" in faults(directory)
