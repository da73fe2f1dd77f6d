# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from ovirt_tcp_plugin.engine.engine_config import DEFAULT_COMMAND

engine_config = click.option(
    "--engine-config",
    type=click.Path(path_type=Path),
    default=DEFAULT_COMMAND,
    show_default=True,
    help="The engine's command of this name.",
)
