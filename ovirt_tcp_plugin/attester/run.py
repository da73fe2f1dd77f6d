# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-agent run`: wire the agent and run it until SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import signal
from pathlib import Path

import click

from ovirt_tcp_plugin import command, errors
from ovirt_tcp_plugin.attester import host_tpm, measure
from ovirt_tcp_plugin.attester.agent import Agent
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.credentials import Credentials
from ovirt_tcp_plugin.attester.hook_files import HookFiles
from ovirt_tcp_plugin.attester.settings import AgentSettings, load_settings
from ovirt_tcp_plugin.attester.stop_flag import StopFlag
from ovirt_tcp_plugin.attester.trust import TrustedAuthorities
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.clock import Clock

log = logging.getLogger("attester")


@click.command()
@click.pass_obj
def run(config_dir: Path) -> None:
    """Report to the attestation server whenever it asks, and at once on SIGHUP, until SIGTERM."""
    command.log_to_stderr()
    settings = load_settings(config_dir)
    state = AgentState(settings.state.directory)
    _check_client(state)
    trusted = TrustedAuthorities(state, settings.verifier.ca_file)
    client = VerifierClient(settings.verifier.urls, trusted.file, state.client_file)
    with host_tpm.connect(settings.tpm) as tpm:
        ak = tpm.load_quoting_key(state)
        agent = _wire(settings, state, client, trusted, tpm, ak)
        _handle_signals(agent)
        name = settings.host.known_as
        log.info("running host=%s tpm=%s server=%s", name, settings.tpm.device, client.current)
        try:
            agent.run()
        finally:
            with contextlib.suppress(errors.Error):
                ak.unload()
            client.close()
            log.info("stopped")


def _check_client(state: AgentState) -> None:
    """Return if the host is enrolled, or its chip may be: then the agent asks by it.

    Raises:
        InvalidConfig: it is not enrolled.
    """
    try:
        state.check_client()
    except errors.InvalidConfig as e:
        if not state.has_key():
            raise
        log.warning("no client certificate reason=%s", e)


def _wire(
    settings: AgentSettings,
    state: AgentState,
    client: VerifierClient,
    trusted: TrustedAuthorities,
    tpm: host_tpm.HostTpm,
    ak: measure.QuotingKey,
) -> Agent:
    name = settings.host.known_as

    def certify() -> None:
        # Without our certificate: the server does not take it.
        stranger = VerifierClient(settings.verifier.urls, trusted.file, None)
        with contextlib.closing(stranger):
            tpm.certify_again(state, stranger, name)

    credentials = Credentials(name, state, client, trusted, certify, Clock().wall)
    return Agent(
        host_name=name,
        state=state,
        tpm=tpm,
        ak=ak,
        client=client,
        sources=settings.boot.sources,
        hook_files=HookFiles(settings.hooks.directory),
        retry_most_s=settings.verifier.retry_most,
        stop_flag=StopFlag(),
        credentials=credentials,
    )


def _handle_signals(agent: Agent) -> None:
    signal.signal(signal.SIGHUP, lambda number, frame: agent.offer())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: agent.stop())
