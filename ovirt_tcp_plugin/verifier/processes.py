# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The processes of one server, on one port and one database, so that all cores are used.

The parent serves nobody. It stops all when it is told to, or when one of them ended: what ended one
may have left the others half alive, so systemd starts all again. They die with it, even by kill -9.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.parent import die_with_parent
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.shared_metrics import SharedMetrics
from ovirt_tcp_plugin.verifier.web import server

log = logging.getLogger("verifier.processes")

# To finish what is being written; a database that says nothing is given up by then.
STOP_WITHIN_S = 20

_AWAITED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP}

Sockets = Sequence[socket.socket]


@dataclasses.dataclass(frozen=True)
class Share:
    """What one of the processes has.

    Its number, the sockets it serves on, and what all write on.
    """

    number: int
    sockets: Sockets
    shared_metrics: SharedMetrics


Serve = Callable[[Share], None]


def run(options: settings.ServerOptions, serve: Serve) -> None:
    """Serve in as many processes as the options say, until SIGTERM or SIGINT.

    Call it without open databases and other threads: neither survives a fork.

    Args:
        serve: serves until SIGTERM; runs in each process, with its share.

    Raises:
        Unavailable: the address or port cannot be had, or a process ended by itself.
    """
    listening = listen(options.address, options.port, options.processes)
    shared_metrics = SharedMetrics(options.processes)
    # Where it is ignored, as some starters leave it, it never comes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    running: dict[int, int] = {}  # number by process id
    try:
        for number, sockets in enumerate(listening):
            # Connections that nobody takes any more would wait in a socket that another process
            # holds open.
            others = [other for other in listening if other is not sockets]
            child = _fork(Share(number, sockets, shared_metrics), others, serve)
            running[child] = number
        _close(listening)
        fault = _watch(running)
    finally:
        _stop(running)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if fault:
        raise errors.Unavailable("the server", fault)


def listen(address: str, port: int, count: int) -> list[Sockets]:
    """Return sockets for each of `count` processes, all on one port.

    Each has its own, among which the kernel divides the connections: of a single one, whoever wakes
    first takes all that wait, and agents keep theirs forever.

    Raises:
        Unavailable: the address or port cannot be had.
    """
    # A second server of this user, started by mistake, would share the port, too; so it must be
    # free first.
    probe = server.listen(address, port)
    port = int(probe[0].getsockname()[1])
    _close([probe])
    return [server.listen(address, port, shared=True) for _ in range(count)]


def _fork(share: Share, others: Sequence[Sockets], serve: Serve) -> int:
    """Return the id of a new process that serves."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    number = share.number
    status = 1
    try:
        die_with_parent()
        if os.getppid() == parent:  # it may have died just before
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
            _close(others)
            log.info("process number=%d pid=%d begins", number, os.getpid())
            serve(share)
            status = 0
    except errors.Error as e:
        log.error("process number=%d error=%s", number, e)
    except Exception:
        log.exception("process number=%d failed", number)
    finally:
        logging.shutdown()
        os._exit(status)


def _watch(running: dict[int, int]) -> str:
    """Return when it is time to stop: why, or nothing if somebody asked for it."""
    while True:
        number = signal.sigwait(_AWAITED)
        if number == signal.SIGHUP:
            for child in running:
                os.kill(child, signal.SIGHUP)
            continue
        if number != signal.SIGCHLD:
            return ""
        # One that ended well was told to, as the others will be, and we.
        for number, status in _reap(running).items():
            return f"its process {number} ended by itself, status {status}" if status else ""


def _reap(running: dict[int, int]) -> dict[int, int]:
    """Take those that ended out of `running`; return their statuses by number.

    A status is negative for a signal.
    """
    ended = {}
    for child in list(running):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            log.info("process number=%d pid=%d ended status=%d", running[child], child, code)
            ended[running.pop(child)] = code
    return ended


def _stop(running: dict[int, int]) -> None:
    for child in running:
        os.kill(child, signal.SIGTERM)
    end_s = time.monotonic() + STOP_WITHIN_S
    while running and time.monotonic() < end_s:
        signal.sigtimedwait({signal.SIGCHLD}, max(end_s - time.monotonic(), 0))
        _reap(running)
    for child, number in running.items():
        log.error("process number=%d pid=%d does not stop and is killed", number, child)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _close(listening: Sequence[Sockets]) -> None:
    for sockets in listening:
        for listener in sockets:
            listener.close()
