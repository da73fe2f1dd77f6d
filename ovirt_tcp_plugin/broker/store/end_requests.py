# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Requests to end pools, which `ovirt-tcp setup --remove` leaves in the broker's state directory.

Setup is root on the engine machine, and needs neither a token nor a broker that runs. A request is
an empty file with the cluster's id in its name; the broker removes it when it is done.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from ovirt_tcp_plugin import durable

_PREFIX = "end-pool-"
_CLUSTER_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
# More clusters than an engine has; the others wait for the next look.
MAX_REQUESTS = 10_000


class EndRequests:
    """The requests in one directory.

    Args:
        directory: the broker's option `state.directory`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, cluster_ids: Iterable[str]) -> None:
        """Ask for the end of these pools. Raises OSError.

        Without the directory there was no broker, which remembers no pool then.
        """
        if not self._directory.is_dir():
            return
        for cluster_id in cluster_ids:
            durable.replace(self._path(cluster_id), b"")

    def cluster_ids(self) -> list[str]:
        """Return the clusters whose pools are to be ended."""
        cluster_ids: list[str] = []
        files = itertools.islice(self._directory.glob(f"{_PREFIX}*"), MAX_REQUESTS)
        for path in files:
            cluster_id = path.name[len(_PREFIX) :]
            if _CLUSTER_ID.fullmatch(cluster_id):
                cluster_ids.append(cluster_id)
        return cluster_ids

    def remove(self, cluster_id: str) -> None:
        """A request is done. Raises OSError."""
        self._path(cluster_id).unlink(missing_ok=True)

    def _path(self, cluster_id: str) -> Path:
        return self._directory / f"{_PREFIX}{cluster_id}"
