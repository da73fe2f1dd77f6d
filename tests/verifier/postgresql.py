# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL for the tests: in a temporary directory, on a unix socket, never as root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg2

from ovirt_tcp_plugin.parent import die_with_parent
from ovirt_tcp_plugin.verifier.store.database import Database

# Our power cuts kill processes, never the kernel, which writes what they gave it.
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "fsync": "off",
}
# The tables are made once, and copied for each test.
_TEMPLATE = "newest"


def programs() -> Path:
    """Return the directory of initdb and postgres: Debian keeps them off PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent


class PostgreSql:
    """A server of its own, with as many databases as asked for."""

    def __init__(self) -> None:
        # A unix socket's path holds some 100 characters; pytest's directories are too deep.
        self.directory = Path(tempfile.mkdtemp(prefix="pg"))
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.directory, self._user, self._user)
        data = self.directory / "data"
        self._run("initdb", "-D", str(data), "-U", "verifier", "--auth=trust", "--no-sync")
        self._count = 0
        self._open: list[str] = []
        self._has_template = False
        self._process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        command = [
            str(programs() / "postgres"),
            "-D",
            str(self.directory / "data"),
            "-k",
            str(self.directory),
            *options,
        ]
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(
            command, stdout=log, stderr=log, preexec_fn=die_with_parent, **self._as_user()
        )
        self._run("pg_isready", "-h", str(self.directory), "-t", "20", retry=True)

    def stop(self) -> None:
        """Stop it at once, as a power cut would."""
        self._process.kill()
        self._process.wait(10)

    def freeze(self) -> None:
        """Have it do nothing any more, with all connections open, as a machine that hangs.

        `thaw` has it go on.
        """
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        listed = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False
        )
        for pid in (self._process.pid, *map(int, listed.stdout.split())):
            os.kill(pid, number)

    def close(self) -> None:
        """Stop it and remove everything."""
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_database(self) -> str:
        """Return the URL of a database with the tables of today's release and no rows."""
        if not self._has_template:
            self._make_template()
        return self._create(_TEMPLATE)

    def empty_database(self) -> str:
        """Return the URL of a database without tables."""
        return self._create("template1")

    def drop_databases(self) -> None:
        """Remove the databases that were made: hundreds of them would fill a disk."""
        while self._open:
            self._execute(f"DROP DATABASE {self._open.pop()} WITH (FORCE)")

    def _make_template(self) -> None:
        self._execute(f"CREATE DATABASE {_TEMPLATE} STRATEGY wal_log")
        Database(self._url(_TEMPLATE)).close()
        self._has_template = True

    def _create(self, template: str) -> str:
        self._count += 1
        name = f"t{self._count}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        self._open.append(name)
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://verifier@/{name}?host={self.directory}"

    def _execute(self, statement: str) -> None:
        connection = psycopg2.connect(host=str(self.directory), user="verifier", dbname="postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def _run(self, program: str, *arguments: str, retry: bool = False) -> None:
        command = [str(programs() / program), *arguments]
        for _ in range(200 if retry else 1):
            done = subprocess.run(command, capture_output=True, timeout=60, **self._as_user())
            if done.returncode == 0:
                return
            subprocess.run(["sleep", "0.1"], check=True)
        raise RuntimeError(f"{program}: {done.stdout.decode()}{done.stderr.decode()}")

    def _as_user(self) -> dict:
        return (
            {"user": self._user, "group": self._user, "cwd": "/"}
            if os.geteuid() == 0
            else {"cwd": "/"}
        )
