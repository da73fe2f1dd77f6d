# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""An OpenAttestation server that takes a while for each question, as a process of its own.

python -m tests.bench.attestation DIRECTORY PORT SECONDS UNTRUSTED_EVERY
"""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tornado.web

from ovirt_tcp_plugin.messages import oat

PATH = "/AttestationService/resources/PollHosts"


class Questions:
    """What was asked: for each question its beginning, its end and the number of its hosts.
    CLOCK_MONOTONIC seconds."""

    def __init__(self, takes_s: float, untrusted_every: int) -> None:
        self.takes_s, self.untrusted_every = takes_s, untrusted_every
        self.taken: list[tuple[float, float, int]] = []
        self.open = True
        self.bad: frozenset[str] = frozenset()
        # When each host was first said to be untrusted.
        self.told_s: dict[str, float] = {}

    def level(self, name: str) -> str:
        """Return the level of a host, which its number rules."""
        number = int(re.sub(r"\D", "", name) or 0)
        bad = self.untrusted_every and number % self.untrusted_every == self.untrusted_every - 1
        bad = bad or name.partition(".")[0] in self.bad
        return "untrusted" if bad else "trusted"

    def take(self, began_s: float, hosts: Sequence[oat.PolledHost]) -> None:
        """Note a question that is answered now."""
        ended_s = time.monotonic()
        self.taken.append((began_s, ended_s, len(hosts)))
        for host in hosts:
            if host.trust_lvl == "untrusted":
                self.told_s.setdefault(host.host_name.partition(".")[0], ended_s)


class PollHosts(tornado.web.RequestHandler):
    def initialize(self, questions: Questions) -> None:
        self.questions = questions

    async def post(self) -> None:
        began, questions = time.monotonic(), self.questions
        poll = oat.decode_poll(self.request.body)
        await asyncio.sleep(questions.takes_s)
        now = datetime.datetime.now(datetime.timezone.utc)
        hosts = [oat.PolledHost(name, questions.level(name), now) for name in poll.hosts]
        questions.take(began, hosts)
        self.set_status(200 if questions.open else 503)
        self.finish(json.dumps(oat.encode_answer(hosts)))


class Control(tornado.web.RequestHandler):
    """`GET`: the questions so far, and when hosts were first said to be untrusted.

    `POST ?open=0`: from now on every answer is a 503; `?bad=h1,h2`: these are untrusted.
    """

    def initialize(self, questions: Questions) -> None:
        self.questions = questions

    def get(self) -> None:
        self.finish({"taken": self.questions.taken, "told": self.questions.told_s})

    def post(self) -> None:
        self.questions.open = self.get_query_argument("open", "1") == "1"
        self.questions.bad = frozenset(self.get_query_argument("bad", "").split(","))


async def _serve(directory: Path, port: int, questions: Questions) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "engine.pem", directory / "engine.key")
    shared = {"questions": questions}
    application = tornado.web.Application(
        [(PATH, PollHosts, shared), ("/control", Control, shared)], log_function=lambda _: None
    )
    application.listen(port, "127.0.0.1", ssl_options=tls)
    await asyncio.Event().wait()


if __name__ == "__main__":
    given = Questions(float(sys.argv[3]), int(sys.argv[4]))
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]), given))
