# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""An attester with its state on disk, and a server in the verifier's place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.tpm import Tpm
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.verifier.authority import Authority
from tests.attester.fake_verifier import FakeVerifier


@pytest.fixture
def make_verifier(authority: Authority, tmp_path: Path) -> Iterator[Callable[..., FakeVerifier]]:
    with ExitStack() as stack:
        made: list[FakeVerifier] = []

        def make(name: str = "127.0.0.1", signed_by: Authority = authority) -> FakeVerifier:
            directory = tmp_path / f"verifier-{len(made)}"
            directory.mkdir()
            made.append(FakeVerifier(directory, signed_by, name))
            stack.callback(made[-1].close)
            return made[-1]

        yield make


@pytest.fixture
def verifier(make_verifier: Callable[..., FakeVerifier]) -> FakeVerifier:
    return make_verifier()


@pytest.fixture
def host(make_host: Callable[..., LabHost]) -> LabHost:
    made = make_host()
    made.boot()
    return made


@pytest.fixture
def tpm(host: LabHost) -> Iterator[Tpm]:
    connected = host.connect()
    yield connected
    connected.close()


@pytest.fixture
def state(host: LabHost) -> AgentState:
    return AgentState(host.state_directory)
