# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Prepares an engine for trusted pools, and undoes it: `ovirt-tcp setup`. Each change is an act in a journal.

`acts` has the one rule of what is done, left alone and undone, by what is there and what the `journal` says. The acts
are in `options` (phase 1, by `engine_config`), `policy`, `access` and `cluster` (phase 2, by REST); `phases` lists them.
"""
