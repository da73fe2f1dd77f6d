# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp doctor`: examines a live installation, changes nothing, and says what to do.

`checks` has the list of checks. First `probes` looks at everything that they need, at once and in
bounded time (`collector`, `peers`, `engine.inspection`). Then pure functions judge what was
observed (`scheduling_policies`, `walls`, `hosts`, `services`).
"""
