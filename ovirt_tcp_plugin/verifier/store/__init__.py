# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the verifier keeps: tokens, enrolled hosts, rounds, results, reference values.

SQL, no judgement.

Functions of a connection, a module for each kind; `database.Database` runs them.
"""
