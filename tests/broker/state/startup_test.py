# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The stages of the startup attestation."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.broker.state.startup import Progress, Startup


def nobody(host_id: str) -> bool:
    return False


def everybody(host_id: str) -> bool:
    return True


@pytest.fixture
def startup() -> Startup:
    startup = Startup()
    assert startup.begin(["h0", "h1", "h2"], is_trusted=nobody) == 3
    return startup


def test_without_hosts_it_is_over_at_once() -> None:
    startup = Startup()
    startup.begin([], is_trusted=nobody)
    assert startup.next_stage(2, everybody) == []
    assert startup.progress().done


def test_each_host_is_in_one_stage_and_in_order(startup: Startup) -> None:
    assert startup.next_stage(2, everybody) == ["h0", "h1"]
    assert startup.next_stage(2, everybody) == ["h2"]
    assert startup.progress() == Progress(stage=2, asked=3, total=3)
    assert startup.next_stage(2, everybody) == []
    assert startup.progress() == Progress(stage=2, asked=3, total=3, done=True)


def test_a_host_that_is_asked_no_more_is_left_out_and_not_awaited(startup: Startup) -> None:
    assert startup.next_stage(2, lambda host_id: host_id != "h0") == ["h1", "h2"]
    assert not startup.is_awaited("h0")
    assert startup.is_awaited("h1")


def test_a_host_is_awaited_until_it_answers(startup: Startup) -> None:
    assert startup.answered("h1")
    assert not startup.is_awaited("h1")
    assert not startup.answered("h1")


def test_a_host_that_is_trusted_already_is_asked_and_not_awaited() -> None:
    startup = Startup()
    startup.begin(["h0"], is_trusted=everybody)
    assert not startup.is_awaited("h0")
    assert startup.next_stage(1, everybody) == ["h0"]


def test_a_host_that_is_gone_is_not_awaited(startup: Startup) -> None:
    startup.keep(["h1", "h2"])
    assert not startup.is_awaited("h0")


def test_a_new_start_begins_again(startup: Startup) -> None:
    startup.next_stage(3, everybody)
    startup.begin(["h2"], is_trusted=nobody)
    assert startup.progress() == Progress(total=1)
    assert startup.is_staged("h2")
    assert not startup.is_staged("h0")


def test_progress_that_was_returned_does_not_change(startup: Startup) -> None:
    before = startup.progress()
    startup.next_stage(2, everybody)
    assert before == Progress(total=3)
