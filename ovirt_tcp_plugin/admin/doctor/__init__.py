# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp doctor`: looks at a live installation, changes nothing, and says what to do.

`examination` has the list of checks. What they need is looked at first, everything at once and in bounded time (`looks`, by
`collector`, `engine` and `peers`); then pure functions judge it (`policies`, `walls`, `hosts`, `services`).
"""
