# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The floor of an external scheduler: the standard library's server, threaded, which filters by a
dict.

python -m tests.bench.dict_filter PORT FILE (a JSON object: end by host id)
"""

from __future__ import annotations

import json
import socketserver
import sys
import time
import xmlrpc.server
from pathlib import Path
from typing import Any


class Handler(xmlrpc.server.SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"
    rpc_paths = ("/",)


class Server(socketserver.ThreadingMixIn, xmlrpc.server.SimpleXMLRPCServer):
    daemon_threads = True
    request_queue_size = 1024


def main(port: int, ends: dict[str, float]) -> None:
    def run_filters(
        _names: list[str], hosts: list[str], _vm: str, _properties: dict[str, str]
    ) -> dict[str, Any]:
        now = time.monotonic()
        accepted = [host for host in hosts if ends.get(host, 0) > now]
        return {"result_code": 0, "result": accepted, "errors": [], "plugin_errors": {}}

    server = Server(("127.0.0.1", port), Handler, logRequests=False)
    server.register_function(run_filters, "runFilters")
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
