# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-verifier`: parse arguments, load the configuration, wire, run."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import logging
import re
import resource
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import click
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import crypto

from ovirt_tcp_plugin import command, config, errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.tokens import Listed, add_commands, new_secret
from ovirt_tcp_plugin.verifier import authority, endorsement, enrolment, processes, signing
from ovirt_tcp_plugin.verifier.attestation import Attestation
from ovirt_tcp_plugin.verifier.metrics import Metrics
from ovirt_tcp_plugin.verifier.reference_values import ReferenceValueService
from ovirt_tcp_plugin.verifier.settings import Settings
from ovirt_tcp_plugin.verifier.store import authorities, endorsements, hosts, tokens, verdict_keys
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.web import server as web
from ovirt_tcp_plugin.verifier.web.access import TOKEN_ROLES
from ovirt_tcp_plugin.verifier.web.handler import Context

log = logging.getLogger("verifier")

MAX_AUTHORITY_SIZE = 1024 * 1024
FORGET_INTERVAL_S = 3600
# Objects beyond those that went by themselves before cycles are looked for.
GARBAGE = 20_000


@click.group(cls=command.CommandGroup)
@command.config_dir_option("verifier")
@click.pass_context
def main(context: click.Context, config_dir: Path) -> None:
    """The attestation server: appraises what hosts report of their boot and answers for them.

    First `init`, then `token add` for the broker and the administrator, `token enrol` for each
    host, and `run`.
    """
    context.obj = config_dir


@main.command()
@click.option(
    "--name", "names", multiple=True, help="DNS name or address of this server; repeatable."
)
@click.pass_obj
def init(config_dir: Path, names: tuple[str, ...]) -> None:
    """Make the server's authority and certificate, and print what others need to know."""
    settings = _load(config_dir)
    directory = settings.store.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        fault = "others may look into it; make it private: chmod 700"
        raise errors.InvalidConfig(str(directory), [fault])
    now = datetime.datetime.now(datetime.timezone.utc)
    ca = authority.Authority.create(directory, now)
    if not settings.server.certificate.exists():
        _make_server_certificate(settings, ca, names, now)
    _prepare_database(settings, ca)
    served = load_pem_x509_certificate(settings.server.certificate.read_bytes())
    fingerprint = served.fingerprint(hashes.SHA256()).hex(":")
    click.echo(f"authority (give it to agents and broker as ca_file): {directory / 'ca.pem'}")
    click.echo(f"server certificate, SHA-256 fingerprint: {fingerprint}")


def _make_server_certificate(
    settings: Settings, ca: authority.Authority, names: Sequence[str], now: datetime.datetime
) -> None:
    certificate, key = ca.issue_server(names or [socket.getfqdn()], now)
    authority.write_key(settings.server.key, key)
    authority.write_private(settings.server.certificate, certificate, 0o644)


@main.command()
@click.pass_obj
def run(config_dir: Path) -> None:
    """Serve until SIGTERM."""
    command.log_to_stderr()
    settings = _load(config_dir)
    if settings.server.processes == 1:
        asyncio.run(_serve(settings))
    else:
        _prepare_database(settings, authority.Authority.load(settings.store.directory))
        processes.run(settings.server, lambda share: asyncio.run(_serve(settings, share)))


async def _serve(settings: Settings, share: Optional[processes.Share] = None) -> None:
    # Each agent keeps a connection open.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ca = authority.Authority.load(settings.store.directory)
    vendors = read_authorities(settings.enrolment.ek_authorities)
    if not vendors:
        directory = settings.enrolment.ek_authorities
        log.warning(
            "ek_authorities directory=%s is empty: only registered EKs can enrol", directory
        )
    with _database(settings) as database:
        _claim(database, ca)
        await _serve_from(database, settings, ca, vendors, share)
    log.info("stopped")


async def _serve_from(
    database: Database,
    settings: Settings,
    ca: authority.Authority,
    vendors: Sequence[crypto.X509],
    share: Optional[processes.Share],
) -> None:
    context = _wire(database, settings, ca, vendors, share)
    stopped = _stopped_by_signal()
    tls = web.tls_context(settings.server.certificate, settings.server.key, ca.pem)
    server, port = web.serve(context, tls, share.sockets if share else None)
    log.info("serving address=%s port=%d", settings.server.address or "*", port)
    chores = [
        asyncio.ensure_future(_forget_tokens(database, context.clock)),
        asyncio.ensure_future(context.signer.keep_fresh()),
    ]
    if share:
        telling = context.metrics.keep_telling(lambda: server.counts)
        chores.append(asyncio.ensure_future(telling))
    if share or database.remote:
        chores.append(asyncio.ensure_future(context.attestation.relay()))
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
    settings: Settings,
    ca: authority.Authority,
    vendors: Sequence[crypto.X509],
    share: Optional[processes.Share],
) -> Context:
    """Return what the handlers share."""
    clock = Clock()
    options = settings.appraisal
    metrics = Metrics(share.number, share.shared_metrics) if share else Metrics()
    database.on_done = metrics.stored
    reference_values = ReferenceValueService(database, options)
    enrolments = enrolment.EnrolmentService(
        database, ca, vendors, settings.enrolment.first_use, clock, tpm12=options.tpm12
    )
    return Context(
        database=database,
        enrolment=enrolments,
        attestation=Attestation(database, reference_values, metrics, options, clock),
        signer=signing.Signer(database, ca, clock),
        reference_values=reference_values,
        metrics=metrics,
        clock=clock,
        options=settings.server,
    )


def _stopped_by_signal() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def _collect_garbage_rarely() -> None:
    # What is there by now stays; the collector need not look at it time and again.
    gc.collect()
    gc.freeze()
    # Nearly all that a request makes goes with its last reference; only now and then is there a
    # cycle.
    gc.set_threshold(GARBAGE)


async def until_stopped(stopped: asyncio.Event, chores: Sequence[asyncio.Future[None]]) -> None:
    """Return when it is time to stop.

    None of the chores ends by itself. One that did, by a fault of ours, would leave a server that
    looks alive; so its exception comes through, the process ends, and systemd starts it again.
    """
    running: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopped.wait()), *chores]
    ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()


async def _forget_tokens(database: Database, clock: Clock) -> None:
    while True:
        try:
            await database.write(lambda c: tokens.forget_ended(c, int(clock.wall().timestamp())))
        except errors.Unavailable as e:
            log.warning("tokens not tidied error=%s", e)
        await asyncio.sleep(FORGET_INTERVAL_S)


class _Tokens:
    """The database's tokens for the commands that all roles share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, secret: str, role: str, note: str, end_s: int) -> None:
        self._database.transact(
            lambda c: tokens.add(c, secret, Token(role, note=note, end_s=end_s))
        )

    def every(self) -> Iterator[Listed]:
        for identifier, token in self._database.transact(tokens.every).items():
            yield Listed(identifier, token.role, token.host_name or token.note, token.end_s)

    def remove(self, identifier: str) -> None:
        self._database.transact(lambda c: tokens.remove(c, identifier))


@contextlib.contextmanager
def _tokens(config_dir: Path) -> Iterator[_Tokens]:
    with _database(_load(config_dir)) as database:
        yield _Tokens(database)


token_group = add_commands(
    main,
    TOKEN_ROLES,
    "viewer (the broker) may ask for results; operator may also remove hosts; policy may look and "
    "choose reference values; "
    "enrolment may make tokens that enrol hosts, and nothing else.",
    _tokens,
)


@token_group.command("enrol")
@click.argument("host")
@click.option("--host-id", default="", help="The engine's id of the host.")
@click.option(
    "--hours", default=24, show_default=True, type=click.IntRange(1), help="How long it is good."
)
@click.pass_obj
def token_enrol(config_dir: Path, host: str, host_id: str, hours: int) -> None:
    """Make a token that enrols HOST (its address in the engine, lower case), once."""
    enrolment.check_host_name(host)
    secret = new_secret()
    with _database(_load(config_dir)) as database:
        database.transact(
            lambda c: tokens.add(
                c, secret, Token("enrolment", host, host_id, end_s=_in_hours(hours))
            )
        )
    click.echo(secret)


@main.group("host")
def host_group() -> None:
    """Look at or remove enrolled hosts."""


@host_group.command("list")
@click.pass_obj
def host_list(config_dir: Path) -> None:
    """Print the names of the enrolled hosts."""
    with _database(_load(config_dir)) as database:
        for name in database.transact(hosts.names):
            click.echo(name)


@host_group.command("remove")
@click.argument("host")
@click.pass_obj
def host_remove(config_dir: Path, host: str) -> None:
    """Forget HOST: its TPM was replaced, or it left. It enrols again with a new token."""
    with _database(_load(config_dir)) as database:
        database.transact(lambda c: hosts.remove(c, host))
    click.echo(f"{host} is no longer enrolled")


@main.group("ek")
def ek_group() -> None:
    """Vouch for TPMs yourself: for those without a vendor's certificate, or instead of believing
    vendors."""


@ek_group.command("add")
@click.argument("host")
@click.argument("digest")
@click.pass_obj
def ek_add(config_dir: Path, host: str, digest: str) -> None:
    """Register the EK of HOST. DIGEST is what `ovirt-tcp-agent ek` prints on that machine."""
    enrolment.check_host_name(host)
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise errors.InvalidMessage("EK digest", "it has 64 hexadecimal digits in lower case")
    with _database(_load(config_dir)) as database:
        database.transact(lambda c: endorsements.add(c, digest, host))
    click.echo(
        f"{host} may enrol with this TPM and no other; it still needs a token: ovirt-tcp-verifier "
        f"token enrol {host}"
    )


@ek_group.command("list")
@click.pass_obj
def ek_list(config_dir: Path) -> None:
    """Print the registered EKs."""
    with _database(_load(config_dir)) as database:
        for host, digest in database.transact(endorsements.every):
            click.echo(f"{digest}  {host}")


@ek_group.command("remove")
@click.argument("host")
@click.pass_obj
def ek_remove(config_dir: Path, host: str) -> None:
    """Forget the registered EK of HOST; an enrolled host stays enrolled."""
    with _database(_load(config_dir)) as database:
        database.transact(lambda c: endorsements.remove(c, host))
    click.echo(f"no EK is registered for {host}")


@main.group("verdict-key")
def verdict_key_group() -> None:
    """Change the key that signs the verdicts for the hosts' gates, without a good verdict refused.

    `prepare` the next key, `export` both public keys and give them to every host, then `activate`.
    When the last verdict of the former key has ended (appraisal.lifetime), its file may leave the
    hosts.
    """


@verdict_key_group.command("list")
@click.pass_obj
def verdict_key_list(config_dir: Path) -> None:
    """Print the keys: state and id. The active one signs."""
    with _database(_load(config_dir)) as database:
        for state, key in database.transact(verdict_keys.every).items():
            click.echo(f"{state:6}  {key.key_id}")


@verdict_key_group.command("prepare")
@click.pass_obj
def verdict_key_prepare(config_dir: Path) -> None:
    """Make the key that will sign next."""
    settings = _load(config_dir)
    fresh = signing.new_key(authority.Authority.load(settings.store.directory))
    with _database(settings) as database:
        database.transact(lambda c: verdict_keys.prepare(c, fresh))
    click.echo(
        f"key {fresh.key_id} is prepared; export it and give it to every host before you activate "
        "it"
    )


@verdict_key_group.command("export")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.pass_obj
def verdict_key_export(config_dir: Path, directory: Path) -> None:
    """Write the public keys that sign now and next into DIRECTORY, for /etc/ovirt-tcp/verdict-keys/
    of every host."""
    with _database(_load(config_dir)) as database:
        known = database.transact(verdict_keys.every)
    for state, key in known.items():
        if state != verdict_keys.FORMER:
            authority.write_private(
                directory / f"{key.key_id}.pem", key.public.encode("ascii"), 0o644
            )
            click.echo(f"{state:6}  {directory / key.key_id}.pem")


@verdict_key_group.command("activate")
@click.pass_obj
def verdict_key_activate(config_dir: Path) -> None:
    """Have every server on this database sign with the prepared key; every host must know it by
    now."""
    with _database(_load(config_dir)) as database:
        active = database.transact(verdict_keys.activate)
    click.echo(f"key {active.key_id} signs from now on")


command.add_config_commands(main, "verifier", Settings)


def read_authorities(directory: Path) -> list[crypto.X509]:
    """Return the vendor certificates in the *.pem files of a directory.

    Raises:
        InvalidConfig: a file cannot be read; trust that is only half loaded would refuse good
            hosts.
    """
    faults = []
    vendors = []
    for path in sorted(directory.glob("*.pem")):
        try:
            content = _read_bounded(path)
            vendors += endorsement.load_authorities(content)
        except (OSError, errors.InvalidMessage) as e:
            faults.append(f"{path.name}: {e}")
            continue
        if len(content) > MAX_AUTHORITY_SIZE:
            faults.append(f"{path.name}: longer than {MAX_AUTHORITY_SIZE} bytes, split it")
    if faults:
        raise errors.InvalidConfig(str(directory), faults)
    return vendors


def _read_bounded(path: Path) -> bytes:
    """Return a file, or one byte more of it than may be read."""
    with path.open("rb") as file:
        return file.read(MAX_AUTHORITY_SIZE + 1)


def _load(config_dir: Path) -> Settings:
    return config.load(Settings, "verifier", config_dir)


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.store.database)
    try:
        yield database
    finally:
        database.close()


def _prepare_database(settings: Settings, ca: authority.Authority) -> None:
    """Do what only the first server on a database has to do, before there are several."""
    with _database(settings) as database:
        _claim(database, ca)
        signing.ensure_key(database, ca)


def _claim(database: Database, ca: authority.Authority) -> None:
    digest = ca.certificate.fingerprint(hashes.SHA256()).hex()
    database.transact(lambda c: authorities.claim(c, digest))


def _in_hours(hours: int) -> int:
    """Return a moment as tokens end, in seconds of the UTC epoch."""
    return int(Clock().wall().timestamp()) + hours * 3600


if __name__ == "__main__":
    main()
