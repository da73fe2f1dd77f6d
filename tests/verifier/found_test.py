# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures of another file
"""What a hostile reading of this server found: each attack, as it was tried, and what it must come
to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import random
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import evidence, reference_values
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet, Value
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier import attestation
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.reappraise import reappraise
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from ovirt_tcp_plugin.verifier.reference_values import ReferenceValueService
from ovirt_tcp_plugin.verifier.settings import Appraisal
from ovirt_tcp_plugin.verifier.store import challenges, references, results, schema, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.web import reference_values as web_reference_values
from ovirt_tcp_plugin.verifier.web.limits import PAUSE, Shared
from tests.verifier.appraisal.reference_match_test import digest, measured, steps
from tests.verifier.conftest import good_boot
from tests.verifier.postgresql import PostgreSql
from tests.verifier.reference_values_test import SETS, Administrator, admin  # noqa: F401
from tests.verifier.software_tpm import SoftwareTpm, launch_events
from tests.verifier.vendor import Vendor
from tests.verifier.web_test import Agent, Server, agent, level_of, server  # noqa: F401

OTHER_BOOT = "99999999-2222-3333-4444-555555555555"
OWN_SET = ReferenceSet("oat:mine:1", host_names=("host-1",)).with_values(
    [Value("sha256", 17, "", "ab" * 32), Value("sha256", 18, "", "cd" * 32)]
)


def report(agent: Agent) -> Any:
    return agent.answer(agent.challenge()).json()


def boot_evil(agent: Agent) -> None:
    agent.tpm.boot(launch_events(kernel=b"evil"))


def corrupt(server: Server, name: str) -> None:
    """Spoil a set's row, and change another one, so that everybody is judged again."""
    bad = (
        sa.update(schema.reference_sets)
        .where(schema.reference_sets.c.name == name)
        .values(content="{")
    )
    server.database.transact(lambda c: c.execute(bad))
    server.database.transact(
        lambda c: references.put(c, dataclasses.replace(good_boot(), name="unrelated"))
    )


class TestTrusted:
    """Who was called trusted, and must not be."""

    def test_sets_and_their_version_are_of_one_moment(
        self, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other, honest, withdrawn = Database(database_url), references.version, []

        def version(connection: Connection) -> int:
            if not withdrawn:
                withdrawn.append(other.transact(lambda c: references.remove(c, "golden")))
            return honest(connection)

        async def load_while_another_server_withdraws() -> None:
            policies = ReferenceValueService(database, Appraisal())
            monkeypatch.setattr(references, "version", version)
            await policies.at(0)
            monkeypatch.setattr(references, "version", honest)
            assert (await policies.newest()).sets == ()

        database.transact(lambda c: references.put(c, good_boot()))
        asyncio.run(load_while_another_server_withdraws())
        other.close()

    def test_old_evidence_of_a_silent_host_is_not_golden(
        self,
        server: Server,
        admin: Administrator,
        agent: Agent,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(web_reference_values, "IMPORT_WAIT_MS", 300)
        server.choose_good_boot()
        boot_evil(agent)
        assert report(agent)["level"] == "untrusted"
        server.clock.offset_ms += 3600_000
        assert admin.ask("POST", SETS, {"name": "golden", "host": "host-1"})[0] == 503

    def test_what_new_evidence_failed_is_not_forgotten_while_there_are_no_values(
        self,
        server: Server,
        admin: Administrator,
        agent: Agent,
    ) -> None:
        server.choose_good_boot()
        boot_evil(agent)
        assert report(agent)["level"] == "untrusted"
        admin.ask("DELETE", f"{SETS}/golden")
        agent.tpm.boot(launch_events())
        agent.tpm.boot_id = OTHER_BOOT  # another kernel, but the TPM was not reset
        assert report(agent)["level"] == "untrusted"
        server.choose_good_boot()
        assert level_of(server) == "untrusted"

    def test_who_stays_untrusted_is_not_challenged_without_end(
        self,
        server: Server,
        admin: Administrator,
        agent: Agent,
    ) -> None:
        server.choose_good_boot()
        boot_evil(agent)
        report(agent)
        admin.ask("DELETE", f"{SETS}/golden")
        agent.tpm.boot_id = OTHER_BOOT
        agent.tpm.reset_count += 1
        report(agent)
        agent.challenge(wait_ms=0)  # what was asked when the set was removed
        assert agent.challenge(wait_ms=400) is None

    def test_a_host_whose_own_set_is_corrupt_is_not_judged_by_those_for_all(
        self,
        server: Server,
        agent: Agent,
    ) -> None:
        server.choose_good_boot()
        server.database.transact(lambda c: references.put(c, OWN_SET))
        assert report(agent)["level"] == "untrusted"
        corrupt(server, OWN_SET.name)
        assert level_of(server) == "unknown"

    def test_a_corrupt_set_that_may_be_for_some_hosts_is_not_removed(
        self,
        server: Server,
        admin: Administrator,
    ) -> None:
        server.database.transact(lambda c: references.put(c, OWN_SET))
        corrupt(server, OWN_SET.name)
        assert admin.ask("DELETE", f"{SETS}/{OWN_SET.name}")[0] == 409

    def test_a_void_result_gets_no_age_again(
        self,
        server: Server,
        agent: Agent,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server.choose_good_boot()
        report(agent)
        honest, looks = attestation.Attestation._last, []

        async def judged(self: attestation.Attestation, names: Any) -> Any:
            looks.append(names)
            if len(looks) == 2:
                await self.void(0)
            return await honest(self, names)

        monkeypatch.setattr(attestation.Attestation, "_last", judged)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.ask, server, 4000, 0)
            report(agent)
            assert asked.result()["age_ms"] is None
        assert self.ask(server, 100)["age_ms"] is None

    def test_a_machine_that_was_paused_tells_no_ages(self, server: Server, agent: Agent) -> None:
        server.choose_good_boot()
        report(agent)
        assert self.ask(server, 100)["level"] == "trusted"
        wall_ms = server.clock.wall_ms
        server.clock.wall_ms = lambda: wall_ms() + 3600_000  # type: ignore[method-assign]
        assert self.ask(server, 100)["level"] == "timeout"

    @staticmethod
    def ask(server: Server, wait_ms: int, max_age_ms: int = 600_000) -> Any:
        message = {"hosts": ["host-1"], "max_age_ms": max_age_ms, "wait_ms": wait_ms}
        return server.call("POST", "/v1/results", message, token=server.token("viewer")).json()[
            "hosts"
        ][0]

    @pytest.mark.parametrize("staged", [1, "true", None])
    def test_staged_is_true_or_false(self, server: Server, agent: Agent, staged: object) -> None:
        message = {"name": "golden", "host": "host-1", "staged": staged}
        assert server.call("POST", SETS, message, token=server.token("policy")).status_code == 400


class TestUntrusted:
    """Who was taken out on no evidence."""

    def test_a_pcr_that_nobody_asked_for_takes_no_host_out(self) -> None:
        golden = reference_values.from_boot(
            "golden", "sha256", (*steps(), Step(0, "firmware", digest("firmware")))
        )
        required = {"sha256": (0, 17, 18)}
        level, _ = reappraise("h", (), measured(steps()), required, Criteria("sha256", [golden]))
        assert level is Level.UNKNOWN

    def test_evidence_for_the_profile_of_before_a_restart_proves_nothing(
        self,
        server: Server,
        agent: Agent,
    ) -> None:
        server.choose_good_boot()
        challenge = agent.challenge()
        changed = Appraisal(profile="txt+firmware")
        server.attestation._options = server.attestation._intake._options = changed
        answer = agent.answer(challenge)
        assert (answer.status_code, answer.json()["code"]) == (403, "nonce_unknown")


class TestOthers:
    """What one row or one peer did to others."""

    def test_one_flipped_bit_in_what_was_measured(
        self, server: Server, vendor: Vendor, agent: Agent
    ) -> None:
        server.choose_good_boot()
        report(agent)
        report(Agent(server, vendor, "host-2", SoftwareTpm(1)).enrol())
        kept = server.database.transact(lambda c: results.measured(c, ["host-1"]))["host-1"]
        broken = kept.replace('"17": "', '"17": "q')
        bad = (
            sa.update(schema.results)
            .where(schema.results.c.host_name == "host-1")
            .values(measured=broken)
        )
        server.database.transact(lambda c: c.execute(bad))
        server.database.transact(
            lambda c: references.put(c, dataclasses.replace(good_boot(), name="unrelated"))
        )
        known = server.call("GET", "/v1/hosts", token=server.token("viewer")).json()["hosts"]
        assert {one["host_name"]: one["level"] for one in known} == {
            "host-1": "unknown",
            "host-2": "trusted",
        }

    def test_a_corrupt_round_does_not_lock_its_host_out(self, server: Server, agent: Agent) -> None:
        server.choose_good_boot()
        assert agent.challenge() is not None
        server.database.transact(
            lambda c: c.execute(sa.update(schema.rounds).values(selection='{"sha256": [17'))
        )
        agent.tpm.boot_id = OTHER_BOOT
        assert report(agent)["level"] == "trusted"

    def test_one_bad_piece_of_work_undoes_only_itself(self, database: Database) -> None:
        async def write() -> list[Any]:
            first = database.write(
                lambda c: time.sleep(0.1)
            )  # so that the others share a transaction
            work = [
                functools.partial(tokens.add, secret=f"good {n}", token=Token("viewer"))
                for n in range(3)
            ]
            bad = functools.partial(
                tokens.add, secret="bad", token=Token("enrolment", "host-1", "\0")
            )
            return await asyncio.gather(
                first, *map(database.write, (*work, bad)), return_exceptions=True
            )

        assert asyncio.run(write())[1:4] == [None] * 3

    @pytest.mark.parametrize("path", ["/v1/enrolment/tokens", f"{SETS}/%00", f"{SETS}/%00/add"])
    def test_nul_is_refused_at_the_door(self, server: Server, path: str) -> None:
        method = "DELETE" if path.endswith("%00") else "POST"
        token = server.token("enrolment" if "tokens" in path else "policy")
        assert (
            server.call(method, path, {"host": "host-1", "host_id": "\0"}, token=token).status_code
            == 400
        )

    def test_a_set_that_could_not_be_read_again_is_not_kept(self, database: Database) -> None:
        many = reference_values.from_boot(
            "golden", "sha256", [Step(17, f"module_{n}", digest(str(n))) for n in range(4097)]
        )
        with pytest.raises(errors.Conflict, match="cannot be kept"):
            database.transact(lambda c: references.put(c, many))
        assert database.transact(references.load).sets == ()

    def test_two_servers_do_not_lock_each_other_out(self, postgresql: PostgreSql) -> None:
        one, two = (Database(url) for url in [postgresql.new_database()] * 2)
        names = [f"host-{n}" for n in range(1000)]
        rows = [{"host_name": name, "asked": 0, "issued": 0, "answered": 0} for name in names]
        one.transact(lambda c: c.execute(sa.insert(schema.rounds), rows))
        drawn = random.Random(1)

        async def ask() -> None:
            for _ in range(40):
                await one.write(lambda c: challenges.ask(c, names))

        async def issue() -> None:
            for _ in range(40):
                challenge = evidence.Challenge(drawn.randbytes(32), {"sha256": (17, 18)}, 15_000)
                nonces = [
                    IssuedNonce(challenge, name, 0, 15_000) for name in drawn.sample(names, 60)
                ]
                await asyncio.gather(
                    *(two.write(lambda c, n=n: challenges.issue(c, n, "boot")) for n in nonces)
                )

        async def both() -> None:
            await asyncio.gather(ask(), issue())

        try:
            asyncio.run(both())  # Unavailable would be a deadlock
        finally:
            one.close()
            two.close()
            postgresql.drop_databases()

    def test_megabytes_that_nobody_asked_for_are_not_kept(
        self, server: Server, agent: Agent
    ) -> None:
        context = ssl.create_default_context(cafile=str(server.directory / "ca.pem"))
        assert agent.certificate is not None
        context.load_cert_chain(*agent.certificate)
        before_kib, size, held = _resident_kib(), 3 * 2**20, []
        for _ in range(30):
            plain = socket.create_connection(("127.0.0.1", server.port), 10)
            held.append(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            held[-1].sendall(
                b"POST /v1/evidence HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
            )
            try:
                held[-1].sendall(bytes(size - 1))
            except OSError:
                continue  # the server hung up
        assert _resident_kib() - before_kib < 30 * 1024
        for one in held:
            one.close()


class TestShared:
    def test_who_asks_meanwhile_shares_the_work(self) -> None:
        begun = []

        async def work() -> bytes:
            begun.append(1)
            await asyncio.sleep(0.01)
            return b"done"

        async def ask() -> list[bytes]:
            shared = Shared()
            return await asyncio.gather(*(shared.get(work) for _ in range(20)))

        assert asyncio.run(ask()) == [b"done"] * 20
        assert len(begun) == 1

    def test_it_is_not_begun_again_at_once(self) -> None:
        took_s = 0.02

        async def work() -> bytes:
            time.sleep(took_s)  # what it costs everybody else
            return b""

        async def ask() -> float:
            shared, loop = Shared(), asyncio.get_running_loop()
            await shared.get(work)
            began_s = loop.time()
            await shared.get(work)
            return loop.time() - began_s

        assert asyncio.run(ask()) >= PAUSE * took_s

    def test_a_fault_is_told_to_all_and_is_over(self) -> None:
        async def fail() -> bytes:
            raise errors.Unavailable("the store", "it is away")

        async def work() -> bytes:
            return b"done"

        async def ask() -> tuple[list[Any], bytes]:
            shared = Shared()
            faults = await asyncio.gather(
                *(shared.get(fail) for _ in range(3)), return_exceptions=True
            )
            return list(faults), await shared.get(work)

        faults, after = asyncio.run(ask())
        assert {type(one) for one in faults} == {errors.Unavailable}
        assert after == b"done"


def _resident_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
