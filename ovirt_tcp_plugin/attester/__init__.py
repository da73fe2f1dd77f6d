# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""On the host: measures the boot and reports Evidence. It never judges itself."""
