# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Hosts that get no VMs, are out of service, or wait for a decision, as the broker says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.readout import ChargeState
from ovirt_tcp_plugin.messages.result import Level
from tests.admin.doctor.conftest import Installation

LIFE_MS = 600_000
HOSTS = ("h1", "h2", "h3")


@pytest.fixture
def attest(installation: Installation) -> Iterator[Callable[..., None]]:
    """Let the attestation server judge hosts; afterwards all are trusted again, in service, and
    inside the wall."""
    state, clock = installation.site.state, installation.site.clock
    saved = state.encode()

    def attest(level: Level, *names: str) -> None:
        reason = (
            ("pcr_differs", "PCR 17 is not the known one") if level is Level.UNTRUSTED else ("", "")
        )
        answer = Answer(level, clock.now_ms(), 0, LIFE_MS, True, *reason)
        state.questions.record({installation.site.host(name).id: answer for name in names})

    yield attest
    attest(Level.TRUSTED, *HOSTS)
    state.restore(saved)
    assert installation.look().bad == {}


def leave_wall(installation: Installation, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    left = {installation.site.host(name).id for name in names}
    monkeypatch.setattr(
        installation.wall, "hosts", [uid for uid in installation.wall.hosts if uid not in left]
    )


def test_one_that_is_not_trusted(
    installation: Installation, attest: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    attest(Level.UNTRUSTED, "h2")
    with monkeypatch.context() as patch:
        leave_wall(installation, patch, "h2")
        look = installation.look()
    assert look.bad["not_trusted"] == "warning"
    assert (
        "Hosts of cluster Trusted that get no VMs: h2 (pcr_differs)."
        in look.by_code["not_trusted"]["text"]
    )
    assert "wall_wide" not in look.bad


def test_one_whose_kernel_is_locked_down_with_the_way_out(installation: Installation) -> None:
    state, clock = installation.site.state, installation.site.clock
    saved = state.encode()
    answer = Answer(
        Level.UNTRUSTED, clock.now_ms(), 0, LIFE_MS, True, "log_locked_down", "no event log"
    )
    state.questions.record({installation.site.host("h2").id: answer})
    look = installation.look()
    trusted = Answer(Level.TRUSTED, clock.now_ms(), 0, LIFE_MS, True)
    state.questions.record({installation.site.host("h2").id: trusted})
    state.restore(saved)

    assert look.bad["host_locked_down"] == "FAIL"
    told = look.by_code["host_locked_down"]
    assert told["text"].endswith("measured launch: h2.")
    assert "Secure Boot off" in told["next"] and "profile uefi" in told["next"]


def test_one_that_was_taken_out(
    installation: Installation, attest: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    attest(Level.UNTRUSTED, "h2")
    installation.site.state.quarantine.deactivated(installation.site.host("h2").id)
    with monkeypatch.context() as patch:
        leave_wall(installation, patch, "h2")
        look = installation.look()
    assert {"quarantined": "warning"}.items() <= look.bad.items()
    assert "not_trusted" not in look.bad
    assert look.by_code["quarantined"]["text"].endswith("untrusted: h2.")


def test_a_pool_without_a_trusted_host_and_a_guard_that_waits(
    installation: Installation, attest: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    attest(Level.UNTRUSTED, *HOSTS)
    with monkeypatch.context() as patch:
        leave_wall(installation, patch, *HOSTS)
        look = installation.look()
    assert {"no_trusted_host": "FAIL", "guard_tripped": "warning"}.items() <= look.bad.items()
    assert "of cluster Trusted turned untrusted at once" in look.by_code["guard_tripped"]["text"]
    assert "h1, h2, h3" in look.by_code["guard_tripped"]["text"]
    assert "ovirt-tcp guard release" in look.by_code["guard_tripped"]["next"]


def test_a_pool_in_observation(
    installation: Installation, attest: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine = installation.site.state.quarantine
    (pool_id,) = installation.site.state.pools()
    quarantine.pool_gone(pool_id)
    attest(Level.UNTRUSTED, "h2")
    with monkeypatch.context() as patch:
        leave_wall(installation, patch, "h2")
        look = installation.look()
    assert look.bad["observation"] == "warning"
    assert "guard_tripped" not in look.bad
    assert "Cluster Trusted is in observation" in look.by_code["observation"]["text"]
    assert look.by_code["observation"]["text"].endswith("without new VMs: h2.")
    assert "ovirt-tcp guard release --pool Trusted" in look.by_code["observation"]["next"]


@pytest.mark.parametrize(
    ("acts", "text"),
    [
        (True, "A second broker runs for this engine, on copy.lab; the one on engine.lab is in"),
        (False, "The broker on engine.lab changes nothing at the engine: another one, on copy.lab"),
    ],
)
def test_another_broker_at_the_same_engine(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, acts: bool, text: str
) -> None:
    state = ChargeState("engine.lab", acts, ("copy.lab",))
    monkeypatch.setattr(installation.site.service, "charge", lambda: state)
    look = installation.look()
    assert look.bad["second_broker"] == "FAIL"
    assert text in look.by_code["second_broker"]["text"]
