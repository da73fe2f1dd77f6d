# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The configuration of `ovirt-tcp`, and the two interfaces that it names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ovirt_tcp_plugin import config, errors, secret_files

if TYPE_CHECKING:
    from ovirt_tcp_plugin.remote import Remote


@dataclasses.dataclass(frozen=True)
class VerifierAddress:
    """The attestation server."""

    # Where it answers, such as https://attest.example.com:8443.
    url: str = ""
    # Its authority's certificate, PEM.
    ca_file: Path = Path("/etc/ovirt-tcp/verifier-ca.pem")
    # File with a token of role viewer or policy.
    token_file: Path = Path("/etc/ovirt-tcp/cli.token")


@dataclasses.dataclass(frozen=True)
class BrokerAddress:
    """The broker on the engine machine."""

    # Where its interface answers.
    url: str = "http://127.0.0.1:18782"
    # Authority of its certificate, PEM, where it has one; empty for none.
    ca_file: str = ""
    # File with a token of role viewer or operator: `ovirt-tcp-broker token add`.
    token_file: Path = Path("/etc/ovirt-tcp/broker-api.token")


@dataclasses.dataclass(frozen=True)
class CliSettings:
    """All sections."""

    verifier: VerifierAddress = VerifierAddress()
    broker: BrokerAddress = BrokerAddress()


def verifier(config_dir: Path) -> Remote:
    """Return the interface of the attestation server.

    Raises:
        InvalidConfig: the configuration cannot be used, or does not name the server.
    """
    section = config.load(CliSettings, "cli", config_dir).verifier
    if not section.url:
        raise errors.InvalidConfig(str(config_dir / "cli.yaml"), ["verifier.url is missing"])
    return _remote("verifier", section.url, section.token_file, section.ca_file)


def broker(config_dir: Path) -> Remote:
    """Return the interface of the broker.

    Raises:
        InvalidConfig: the configuration cannot be used.
    """
    section = config.load(CliSettings, "cli", config_dir).broker
    ca_file = Path(section.ca_file) if section.ca_file else None
    return _remote("broker", section.url, section.token_file, ca_file)


def _remote(peer: str, url: str, token_file: Path, ca_file: Optional[Path]) -> Remote:
    # Only here: the help texts need no HTTP client, which takes long to load.
    from ovirt_tcp_plugin.remote import Remote

    secret_files.warn_if_open(token_file)
    return Remote(peer, url, token_file, ca_file)
