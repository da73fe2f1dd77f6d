# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Prepares an engine for trusted pools, and undoes it: `ovirt-tcp setup`.

`changes` has the one rule of what is changed, left alone and undone, by what is there and what the
`journal` says. The changes are in `options` (phase 1, by `engine_config`), `scheduling_policy`,
`access` and `cluster` (phase 2, by REST); `phases` lists them, and `session` talks with the
administrator.
"""
