# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain step 3: what does a host's evidence prove? Pure: no file, socket, clock or random number.

`appraise` is the list of checks and their order. Each check has a module of its own:
`authenticity` (2)-(4), (10) with `quote20` and `quote12`, `counters` (5), `pcr_values` (6), (9),
`logs` (7), `reference_match` (8). `reappraise` repeats (8) when reference values change.
"""
