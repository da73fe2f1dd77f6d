# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The state file: one that an earlier release wrote opens, and what is written back is the same,
but for what that release did not keep."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.verdicts import STANDING_MS
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.placement.inventory import Policy
from tests.broker.state.world import OPTIONS, World
from tests.fake_clock import FakeClock

# Written by the release before the modules got their present names, of a broker with hosts trusted,
# untrusted, in quarantine, held by a tripped guard and left in service by an administrator; at
# these moments.
DATA = Path(__file__).with_name("data")
WRITTEN = DATA / "state.json"
WRITTEN_MS, WRITTEN_UTC_MS = 1_700_000, 5_700_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copy(WRITTEN, tmp_path)
    return tmp_path


def new_state(clock: FakeClock) -> BrokerState:
    return BrokerState(OPTIONS, clock, random.random)


def test_a_file_of_an_earlier_release_opens_and_is_written_back_the_same(directory: Path) -> None:
    restored = new_state(FakeClock(WRITTEN_MS, WRITTEN_UTC_MS))
    file = StateFile(directory)
    file.load(restored)
    assert (file.last_event, file.seen) == (77, {75, 76, 77})
    file.save(restored)
    written = json.loads((directory / "state.json").read_bytes())
    for newer in ("pools", "policies_reported", "ended_pools"):
        assert written["knowledge"].pop(newer) == {}
    assert written["knowledge"].pop("established_pools") == []
    assert written["knowledge"].pop("guard_of_site") is False
    assert written.pop("claim") == {"token": "", "acts": False}
    assert written == json.loads(WRITTEN.read_bytes())
    assert not (directory / "state.broken").exists()


def test_a_file_with_an_ended_pool_opens_and_is_written_back_the_same(tmp_path: Path) -> None:
    earlier = (DATA / "state_ended_pool.json").read_bytes()
    (tmp_path / "state.json").write_bytes(earlier)
    restored = new_state(FakeClock(1_000_000, 5_000_000))
    StateFile(tmp_path).load(restored)
    StateFile(tmp_path).save(restored)
    written = json.loads((tmp_path / "state.json").read_bytes())
    assert written["knowledge"] == json.loads(earlier)["knowledge"]


def test_after_another_boot_untrusted_is_left_without_age_and_the_guard_holds(
    directory: Path,
) -> None:
    clock = FakeClock(5_000, WRITTEN_UTC_MS)
    clock.boot_id = "00000000-0000-0000-0000-000000000002"
    restored = new_state(clock)
    StateFile(directory).load(restored)
    encoded = restored.encode()
    assert {verdict["end_ms"] for verdict in encoded["verdicts"].values()} == {5_000}
    levels = {host_id: verdict["level"] for host_id, verdict in encoded["verdicts"].items()}
    assert levels.pop("h6") == levels.pop("h7") == "unknown"
    assert set(levels.values()) == {"untrusted"}
    # The wall keeps those that were trusted for a while.
    assert encoded["verdicts"]["h6"]["stands_until_ms"] == 5_000 + STANDING_MS
    guard = encoded["guards"]["pool"]
    assert (guard["tripped"], guard["held"]) == (True, ["h3", "h4", "h5"])
    assert set(guard["turned"].values()) == {5_000}
    assert encoded["quarantine"] == json.loads(WRITTEN.read_text())["knowledge"]["quarantine"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"version": 2}', b"\xff", b'{"version": 1, "last_event": null}']
)
def test_an_unreadable_file_is_set_aside(directory: Path, content: bytes) -> None:
    (directory / "state.json").write_bytes(content)
    restored = new_state(FakeClock())
    StateFile(directory).load(restored)
    assert (directory / "state.broken").read_bytes() == content
    assert restored.encode()["verdicts"] == {}


def test_one_that_cannot_be_read_is_left_alone_and_trusts_nobody(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    restored = new_state(FakeClock())
    StateFile(tmp_path).load(restored)
    assert restored.encode()["verdicts"] == {}
    assert (tmp_path / "state.json").is_dir()


def test_one_that_cannot_be_set_aside_stops_nothing(directory: Path) -> None:
    (directory / "state.json").write_bytes(b"{}")
    (directory / "state.broken" / "file").mkdir(parents=True)
    restored = new_state(FakeClock())
    StateFile(directory).load(restored)
    assert restored.encode()["verdicts"] == {}


def test_a_directory_that_cannot_be_made_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.InvalidConfig, match="state.directory: .*file/state cannot be made"):
        StateFile(tmp_path / "file" / "state")


def test_no_event_is_saved_as_known_whose_effect_is_not(tmp_path: Path) -> None:
    """An event may be taken into account while the state is being saved."""
    world = World()
    world.attest(good=world.ids())
    state = StateFile(tmp_path)
    state.last_event = 1
    encode = world.state.encode

    def encode_just_before() -> dict[str, Any]:
        encoded = encode()
        world.state.host_restarted("h1")
        state.seen = frozenset({2})
        state.last_event = 2
        return encoded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.state, "encode", encode_just_before)
        state.save(world.state)
    written = json.loads((tmp_path / "state.json").read_bytes())
    assert "h1" in written["knowledge"]["verdicts"]
    assert (written["last_event"], written["seen_events"]) == (1, [])


# Of each type that JSON has, and beyond what a number may be.
RUBBISH: tuple[Any, ...] = (None, True, -1, 2**70, 1.5, "x", [], {}, [None], {"x": None})


def full_state(directory: Path) -> dict[str, Any]:
    """Return what is written of a pool that goes on, and of one that a person ended."""
    world = World(hosts=6)
    world.attest(good=world.ids())
    world.attest(bad=["h1"])
    world.state.quarantine.deactivated("h1")
    world.policy = Policy("other", "other")
    world.cluster = dataclasses.replace(world.cluster, policy_id="other")
    world.look()
    StateFile(directory).save(world.state)
    going_on = json.loads((directory / "state.json").read_bytes())
    world.state.pool_ends.end("Trusted", "token 1")
    StateFile(directory).save(world.state)
    ended = json.loads((directory / "state.json").read_bytes())
    assert ended["knowledge"]["ended_pools"]
    going_on["knowledge"]["ended_pools"] = ended["knowledge"]["ended_pools"]
    assert going_on["knowledge"]["pools"]
    return cast("dict[str, Any]", going_on)


def spoilt(value: Any) -> Iterator[Any]:
    """Yield a JSON value with each of its parts replaced in turn."""
    yield from RUBBISH
    if isinstance(value, dict):
        for name, member in value.items():
            for bad in spoilt(member):
                yield {**value, name: bad}
            yield {other: kept for other, kept in value.items() if other != name}
    elif isinstance(value, list):
        for index, row in enumerate(value):
            for bad in spoilt(row):
                yield [*value[:index], bad, *value[index + 1 :]]


def test_whatever_one_part_of_it_holds_the_broker_starts(tmp_path: Path) -> None:
    count = 0
    for content in spoilt(full_state(tmp_path)):
        (tmp_path / "state.json").write_text(json.dumps(content))
        restored = BrokerState(OPTIONS, FakeClock(), random.random)
        StateFile(tmp_path).load(restored)
        restored.encode()
        restored.pool_states()
        restored.quarantine.to_deactivate()
        count += 1
    assert count > 500


def test_a_save_that_was_held_up_does_not_replace_a_later_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is held up after it looked, the other looks and writes meanwhile."""
    world, looked, held = World(), threading.Event(), threading.Event()
    memory = StateFile(tmp_path)
    world.attest(good=world.ids())
    encode = BrokerState.encode

    def hold_up(state: BrokerState) -> dict[str, Any]:
        seen = encode(state)
        if not looked.is_set():
            looked.set()
            held.wait(0.3)
        return seen

    monkeypatch.setattr(BrokerState, "encode", hold_up)
    early = threading.Thread(target=memory.save, args=(world.state,))
    early.start()
    looked.wait(5)
    world.attest(bad=["h1"])
    memory.save(world.state)
    held.set()
    early.join()
    saved = json.loads((tmp_path / "state.json").read_bytes())
    assert saved["knowledge"]["verdicts"]["h1"]["level"] == "untrusted"
