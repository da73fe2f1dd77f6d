# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One serving process: wires its parts, runs its chores, and stops by a signal."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import resource
import signal
import ssl
from collections.abc import Sequence
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.verifier import local_store, processes, vendor_authorities
from ovirt_tcp_plugin.verifier.attestation import Attestation
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.enrolment import EnrolmentService
from ovirt_tcp_plugin.verifier.metrics import VerifierMetrics
from ovirt_tcp_plugin.verifier.reference_values import ReferenceValueService
from ovirt_tcp_plugin.verifier.revocation import VendorTrust
from ovirt_tcp_plugin.verifier.settings import VerifierSettings
from ovirt_tcp_plugin.verifier.signing import Signer
from ovirt_tcp_plugin.verifier.store import bad_rows, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.tpm_review import EndorsementReview
from ovirt_tcp_plugin.verifier.web import server as web
from ovirt_tcp_plugin.verifier.web.handler import HandlerContext
from ovirt_tcp_plugin.verifier.web.limits import HttpServer

log = logging.getLogger("verifier")

FORGET_INTERVAL_S = 3600
# All rows are read each time; those that somebody needs meanwhile are logged at once.
LOOK_INTERVAL_S = 3600
# Objects beyond those that went by themselves before cycles are looked for.
GARBAGE = 20_000


async def serve(settings: VerifierSettings, share: Optional[processes.Share] = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        share: of this process, if there are several.

    Raises:
        InvalidConfig: authority, vendors or database cannot be used.
        Unavailable: the address or port cannot be had.
    """
    _raise_limit_of_files()
    local_store.check_modes(settings)
    ca = Authority.load(settings.store.directory)
    paths = settings.enrolment.ek_authorities
    vendors = vendor_authorities.read_trust(settings.enrolment)
    if not vendors.authorities:
        places = ", ".join(str(path) for path in paths)
        log.warning("no ek_authorities in %s: only registered EKs can enrol", places)
    with local_store.opened(settings) as database:
        local_store.claim(database, ca)
        await _serve_from(database, settings, ca, vendors, share)
    log.info("stopped")


async def _serve_from(
    database: Database,
    settings: VerifierSettings,
    ca: Authority,
    vendors: VendorTrust,
    share: Optional[processes.Share],
) -> None:
    context = _wire(database, settings, ca, vendors, share)
    stopped = _stopped_by_signal()
    tls = web.tls_context(settings.server.certificate, settings.server.key, ca.pem)
    _reload_by_signal(settings, context, tls)
    sockets = share.sockets if share else None
    server, port = web.serve(context, tls, sockets)
    log.info("serving address=%s port=%d", settings.server.address or "*", port)
    chores = _begin_chores(context, server, share)
    _collect_garbage_rarely()
    try:
        await until_stopped(stopped, chores)
    finally:
        server.stop()
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)


def _wire(
    database: Database,
    settings: VerifierSettings,
    ca: Authority,
    vendors: VendorTrust,
    share: Optional[processes.Share],
) -> HandlerContext:
    """Return what the handlers share."""
    clock = Clock()
    options = settings.appraisal
    metrics = VerifierMetrics()
    if share:
        metrics = VerifierMetrics(share.number, share.shared_metrics)
    database.on_done = metrics.stored
    reference_values = ReferenceValueService(database, options)
    enrolment = EnrolmentService(
        database,
        ca,
        vendors,
        settings.enrolment.first_use,
        clock,
        tpm12=options.tpm12,
    )
    return HandlerContext(
        database=database,
        authority=ca,
        enrolment=enrolment,
        review=EndorsementReview(database, vendors, settings.enrolment.first_use, clock),
        attestation=Attestation(database, reference_values, metrics, options, clock),
        signer=Signer(database, ca, clock),
        reference_values=reference_values,
        metrics=metrics,
        clock=clock,
        options=settings.server,
    )


def _begin_chores(
    context: HandlerContext, server: HttpServer, share: Optional[processes.Share]
) -> list[asyncio.Future[None]]:
    """Begin what goes on beside the requests."""
    chores = [
        _forget_tokens(context.database, context.clock),
        _look_for_bad_rows(context.database, context.metrics),
        context.signer.keep_fresh(),
        context.review.keep_looking(),
    ]
    if share:
        chores.append(context.metrics.keep_telling(lambda: server.counts))
    if share or context.database.remote:
        chores.append(context.attestation.relay())
    return [asyncio.ensure_future(chore) for chore in chores]


async def until_stopped(stopped: asyncio.Event, chores: Sequence[asyncio.Future[None]]) -> None:
    """Return when it is time to stop.

    None of the chores ends by itself. One that did, by a fault of ours, would leave a server that
    looks alive; so its exception comes through, the process ends, and systemd starts it again.
    """
    stop: asyncio.Future[Any] = asyncio.ensure_future(stopped.wait())
    ended, _ = await asyncio.wait([stop, *chores], return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()


def _stopped_by_signal() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def _reload_by_signal(
    settings: VerifierSettings, context: HandlerContext, tls: ssl.SSLContext
) -> None:
    """Have SIGHUP read the certificates again: authority, vendors', and the server's own."""

    def read_again() -> None:
        try:
            _reload(settings, context, tls)
        except (errors.Error, OSError) as e:
            log.error("not reloaded error=%s", e)
        else:
            log.info("reloaded")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, read_again)


def _reload(settings: VerifierSettings, context: HandlerContext, tls: ssl.SSLContext) -> None:
    """Use the certificates as they are on disk now. Raises InvalidConfig, OSError.

    Connections that are open stay as they are.
    """
    local_store.check_modes(settings)
    ca = Authority.load(settings.store.directory)
    vendors = vendor_authorities.read_trust(settings.enrolment)
    tls.load_verify_locations(cadata=ca.pem.decode("ascii"))
    tls.load_cert_chain(settings.server.certificate, settings.server.key)
    context.authority = ca
    context.enrolment.use(ca, vendors)
    context.review.use(vendors)
    context.signer.use(ca)


def _raise_limit_of_files() -> None:
    # Each agent keeps a connection open.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _collect_garbage_rarely() -> None:
    # What is there by now stays; the collector need not look at it time and again.
    gc.collect()
    gc.freeze()
    # Nearly all that a request makes goes with its last reference; only now and then is there a
    # cycle.
    gc.set_threshold(GARBAGE)


async def _forget_tokens(database: Database, clock: Clock) -> None:
    while True:
        now_s = int(clock.wall().timestamp())
        forget_ended = functools.partial(tokens.forget_ended, now_s=now_s)
        try:
            await database.write(forget_ended)
        except errors.Unavailable as e:
            log.warning("tokens not tidied error=%s", e)
        await asyncio.sleep(FORGET_INTERVAL_S)


async def _look_for_bad_rows(database: Database, metrics: VerifierMetrics) -> None:
    """Report the rows that cannot be read, again and again, until cancelled."""
    while True:
        try:
            unreadable = await database.read_long(bad_rows.find)
            metrics.found_bad_rows(unreadable)
            if unreadable:
                log.error(
                    "unreadable rows=%d tables=%s: `ovirt-tcp-verifier record list`",
                    len(unreadable),
                    ",".join(sorted({row.table for row in unreadable})),
                )
        except errors.Unavailable as e:
            log.warning("records not looked at error=%s", e)
        await asyncio.sleep(LOOK_INTERVAL_S)
