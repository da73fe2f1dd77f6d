# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A serving process goes on until it is stopped, or a chore fails."""

from __future__ import annotations

import asyncio

import pytest

from ovirt_tcp_plugin.verifier.service import until_stopped


def test_a_chore_that_ends_by_a_fault_ends_the_server() -> None:
    async def serve() -> None:
        async def fail() -> None:
            raise KeyError("a fault of ours")

        chores = [asyncio.ensure_future(asyncio.sleep(60)), asyncio.ensure_future(fail())]
        await asyncio.wait_for(until_stopped(asyncio.Event(), chores), 5)

    with pytest.raises(KeyError):
        asyncio.run(serve())


def test_it_serves_until_it_is_stopped() -> None:
    async def serve() -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, stopped.set)
        await asyncio.wait_for(
            until_stopped(stopped, [asyncio.ensure_future(asyncio.sleep(60))]), 5
        )
        assert stopped.is_set()

    asyncio.run(serve())
