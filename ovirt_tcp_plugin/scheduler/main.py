# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-filterd`: parse arguments, load the configuration, wire, run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import click

from ovirt_tcp_plugin import command, config, errors
from ovirt_tcp_plugin.scheduler import server, web
from ovirt_tcp_plugin.scheduler.settings import Settings
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory, believed_owners

log = logging.getLogger("filterd")

# sd_listen_fds(3): the first descriptor that systemd hands over.
LISTEN_FDS_START = 3
# How long the thread that writes the log may keep the interpreter from a call.
SWITCH_S = 0.0005
# The engine waits 3 s for an answer, and this has just been started.
READ_WITHIN_S = 0.5
# How long calls wait while snapshots are read.
SLICE_S = 0.005
FEED_EVERY_S = 0.1


@click.group(cls=command.CommandGroup)
@command.config_dir_option("filterd")
@click.pass_context
def main(context: click.Context, config_dir: Path) -> None:
    """The engine's external scheduler: tells which hosts a VM may run on, from what the broker
    wrote.

    The engine asks for its units only at its own start, so this has to run before the engine does.
    """
    context.obj = config_dir


@main.command()
@click.pass_obj
def run(config_dir: Path) -> None:
    """Answer the engine until SIGTERM."""
    command.log_to_stderr()
    options = config.load(Settings, "filterd", config_dir)
    asyncio.run(_serve(options))


async def _serve(options: Settings) -> None:
    directory = SnapshotDirectory(
        options.snapshots.directory, believed_owners(options.snapshots.owner)
    )
    watchdog = Watchdog()
    first_reading = asyncio.ensure_future(_reload(directory, watchdog))
    # Calls wait meanwhile; beyond that they are answered, and VMs of pools that are not read yet
    # refused.
    await asyncio.wait({first_reading}, timeout=READ_WITHIN_S)
    scheduler = web.Scheduler(directory)
    listeners = _inherited() or _bind(options.server.address, options.server.port)
    running = server.Server(scheduler.answer, scheduler.refuse, listeners)
    sys.setswitchinterval(SWITCH_S)
    notify("READY=1")
    log.info("serving address=%s port=%d", *listeners[0].getsockname()[:2])
    stopped = _stop_signal()
    await first_reading
    gc.freeze()
    await _keep_reloading(directory, watchdog, options.snapshots.reload, stopped)
    running.stop()
    scheduler.close()
    log.info("stopped")


def _stop_signal() -> asyncio.Event:
    """Return what SIGTERM and Ctrl-C set."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _keep_reloading(
    directory: SnapshotDirectory, watchdog: Watchdog, pause_s: float, stopped: asyncio.Event
) -> None:
    while not stopped.is_set():
        await _reload(directory, watchdog)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stopped.wait(), pause_s)


async def _reload(directory: SnapshotDirectory, watchdog: Watchdog) -> None:
    """Take over what changed, a few files at a time, with the calls that wait in between.

    Not in a thread: it would hold the interpreter while calls need it, for more calls and longer.
    """
    watchdog.feed()
    end = time.monotonic() + SLICE_S
    for path in directory.changed_files():
        directory.read(path)
        if time.monotonic() >= end:
            directory.use()
            watchdog.feed()
            await asyncio.sleep(0)
            end = time.monotonic() + SLICE_S
    directory.use()


command.add_config_commands(main, "filterd", Settings)


class Watchdog:
    """systemd's: it is alive as long as it looks at its directory."""

    def __init__(self) -> None:
        self._fed_s = time.monotonic()

    def feed(self) -> None:
        """Say so, if that is some time ago."""
        if time.monotonic() - self._fed_s >= FEED_EVERY_S:
            self._fed_s = time.monotonic()
            notify("WATCHDOG=1")


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), if it asked to be told, and if it listens: nobody waits for
    it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    is_abstract = path.startswith("@")
    address = f"\0{path[1:]}" if is_abstract else path
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as channel:
        channel.setblocking(False)
        with contextlib.suppress(OSError):
            channel.connect(address)
            channel.send(state.encode("ascii"))


def _inherited() -> list[socket.socket]:
    """Return the listening sockets of systemd's socket unit: the port stays open while this
    restarts."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    numbers = range(LISTEN_FDS_START, LISTEN_FDS_START + count)
    return [socket.socket(fileno=number) for number in numbers]


def _bind(address: str, port: int) -> list[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, port), family=family, backlog=server.BACKLOG)
    except OSError as e:
        raise errors.Unavailable(f"port {port} of {address}", str(e)) from e
    return [listener]


if __name__ == "__main__":
    main()
