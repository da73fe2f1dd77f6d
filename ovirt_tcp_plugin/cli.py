# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp`: the administrator's command."""

from __future__ import annotations

import click


@click.group()
def main() -> None:
    """Trusted Compute Pools for oVirt."""


if __name__ == "__main__":
    main()
