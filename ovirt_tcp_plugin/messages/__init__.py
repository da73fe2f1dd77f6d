# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What passes between the roles: values and their codecs. Nothing here does I/O."""
