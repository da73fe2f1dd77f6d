# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong beside the engine: snapshots, filterd, broker and attestation servers."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import http.server
import socket
import threading
import xmlrpc.server
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from ovirt_tcp_plugin.admin.cli import main
from ovirt_tcp_plugin.admin.doctor import peers, services
from ovirt_tcp_plugin.admin.doctor.findings import FindingState
from ovirt_tcp_plugin.admin.doctor.observations import ServerView
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.engine import filterd_client
from ovirt_tcp_plugin.lab import engine_config
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.remote import Remote
from ovirt_tcp_plugin.scheduler import xmlrpc as xmlrpc_codec
from ovirt_tcp_plugin.verifier.authority import Authority
from tests.admin.doctor.conftest import Installation

TEN_MINUTES_MS = 600_000


@pytest.fixture
def rewrite(installation: Installation) -> Iterator[Callable[..., None]]:
    """Write the pool's snapshot file anew, with changes; afterwards it is as it was."""
    path = installation.snapshot_file
    content = path.read_bytes()

    def rewrite(**changes: Any) -> None:
        now = snapshot.decode(content, installation.site.clock.boot_id)
        path.write_bytes(snapshot.encode(dataclasses.replace(now, **changes)))

    yield rewrite
    path.unlink(missing_ok=True)
    path.write_bytes(content)


class TestSnapshots:
    def test_a_missing_file(self, installation: Installation, rewrite: Callable[..., None]) -> None:
        installation.snapshot_file.unlink()
        look = installation.look()
        # filterd itself goes on with what it read before.
        assert (look.bad["snapshot_missing"], look.status) == ("FAIL", 1)
        assert [one["check"] for one in look.found if one["state"] == "not checked"] == [
            "engine_vm"
        ]
        assert (
            "Snapshots lack 3 of 3 hosts of cluster Trusted"
            in look.by_code["snapshot_missing"]["text"]
        )

    @pytest.mark.parametrize(
        ("spoil", "text"),
        [
            (lambda path: path.write_bytes(b'{"version": 1'), "malformed snapshot"),
            (lambda path: path.chmod(0o666), "can be written by group or others"),
        ],
    )
    def test_a_refused_file(
        self,
        installation: Installation,
        rewrite: Callable[..., None],
        spoil: Callable[[Path], object],
        text: str,
    ) -> None:
        spoil(installation.snapshot_file)
        look = installation.look()
        assert look.bad["snapshot_refused"] == "FAIL"
        assert text in look.by_code["snapshot_refused"]["text"]

    def test_one_of_another_boot(
        self, installation: Installation, rewrite: Callable[..., None]
    ) -> None:
        rewrite(boot_id="00000000-0000-0000-0000-000000000001")
        assert "of another boot" in installation.look().by_code["snapshot_refused"]["text"]

    def test_one_of_another_user(self, installation: Installation) -> None:
        look = installation.look(filterd={"snapshots": {"owner": "nobody"}})
        refused = "belongs to another user than the broker" in str(
            look.by_code.get("snapshot_refused")
        )
        # Root's files are believed whoever the broker is.
        assert refused or installation.snapshot_file.stat().st_uid == 0

    def test_an_owner_that_does_not_exist_is_said(self, installation: Installation) -> None:
        look = installation.look(filterd={"snapshots": {"owner": "no-such-user"}})
        unmade = [one for one in look.found if one["state"] == "not checked"]
        assert {one["check"] for one in unmade} == {"engine_vm", "snapshots", "filter"}
        assert all("there is no user no-such-user" in one["text"] for one in unmade)
        assert look.status == 1

    def test_an_old_one(self, installation: Installation, rewrite: Callable[..., None]) -> None:
        before = snapshot.decode(
            installation.snapshot_file.read_bytes(), installation.site.clock.boot_id
        )
        earlier_ms = max(before.written_ms - TEN_MINUTES_MS, 0)
        rewrite(written_ms=earlier_ms)
        moment = snapshot.encode_confirmation(before.boot_id, earlier_ms)
        (installation.snapshot_file.parent / snapshot.CONFIRMATION_FILE).write_bytes(moment)
        assert installation.look({"intervals": {"full_s": 5.0}}).bad == {"snapshot_stale": "FAIL"}

    def test_one_that_is_old_but_still_right_is_no_fault(
        self, installation: Installation, rewrite: Callable[..., None]
    ) -> None:
        """The broker does not write again what has not changed."""
        before = snapshot.decode(
            installation.snapshot_file.read_bytes(), installation.site.clock.boot_id
        )
        rewrite(written_ms=max(before.written_ms - TEN_MINUTES_MS, 0))
        moment = snapshot.encode_confirmation(before.boot_id, boottime_ms())
        (installation.snapshot_file.parent / snapshot.CONFIRMATION_FILE).write_bytes(moment)
        assert installation.look({"intervals": {"full_s": 5.0}}).bad == {}

    def test_one_that_only_its_owner_may_read(self, installation: Installation) -> None:
        installation.snapshot_file.chmod(0o600)
        look = installation.look()
        installation.snapshot_file.chmod(0o644)
        assert look.bad == {"snapshot_mode": "warning"}

    def test_two_directories(self, installation: Installation, tmp_path: Path) -> None:
        look = installation.look({"snapshot": {"directory": str(tmp_path)}})
        assert look.bad == {"snapshot_directories": "FAIL"}
        assert str(tmp_path) in look.by_code["snapshot_directories"]["text"]

    def test_one_that_holds_the_engines_own_vm(
        self, installation: Installation, rewrite: Callable[..., None]
    ) -> None:
        rewrite(exempt=frozenset())
        assert installation.look().bad == {"engine_vm_filtered": "FAIL"}


class Scheduler(xmlrpc.server.SimpleXMLRPCServer):
    """Answers where filterd ought to, as the test wants."""

    def __init__(self, passed: list[str] | None = None, units: Any = None) -> None:
        super().__init__(("127.0.0.1", 0), logRequests=False)
        offered = (
            {"filters": {"TrustedHosts": ["", ""]}, "scores": {}, "balance": {}}
            if units is None
            else units
        )
        answer = {"result_code": 0, "result": passed or [], "errors": [], "plugin_errors": {}}
        self.register_function(lambda: offered, "discover")
        self.register_function(lambda *_: answer, "runFilters")


@pytest.fixture
def instead() -> Iterator[Callable[..., dict[str, Any]]]:
    """Start another scheduler; return filterd's options that lead to it."""
    running: list[Scheduler] = []

    def start(*given: Any, **named: Any) -> dict[str, Any]:
        server = Scheduler(*given, **named)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        return {"server": {"port": server.server_address[1]}}

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


class TestFilterd:
    def test_nobody_there(self, installation: Installation) -> None:
        look = installation.look(filterd={"server": {"port": 1}})
        assert look.bad == {"filterd_silent": "FAIL", "not_checked": "not checked"}
        assert [one["check"] for one in look.found if one["code"] == "not_checked"] == ["filter"]
        assert "systemctl start ovirt-tcp-filterd.socket" in look.by_code["filterd_silent"]["next"]

    def test_one_that_accepts_and_says_nothing(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filterd_client, "ANSWER_WITHIN_S", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as server:
            look = installation.look(filterd={"server": {"port": server.getsockname()[1]}})
        assert look.bad["filterd_silent"] == "FAIL"

    @pytest.mark.parametrize(
        "units",
        [
            {"filters": {"Other": ["", ""]}},
            {},
            {"filters": {"TrustedHosts": ["", ""], "Other": ["", ""]}},
        ],
    )
    def test_something_else_on_its_port(
        self, installation: Installation, instead: Callable[..., dict[str, Any]], units: Any
    ) -> None:
        passed = list(installation.wall.hosts)
        assert installation.look(filterd=instead(passed, units)).bad == {"filterd_foreign": "FAIL"}

    @pytest.mark.parametrize("units", [[], "no", {"filters": 3}])
    def test_nonsense(
        self, installation: Installation, instead: Callable[..., dict[str, Any]], units: Any
    ) -> None:
        assert installation.look(filterd=instead([], units)).bad["filterd_silent"] == "FAIL"

    def test_one_that_refuses_some(
        self, installation: Installation, instead: Callable[..., dict[str, Any]]
    ) -> None:
        look = installation.look(filterd=instead([installation.site.host("h1").id]))
        assert look.bad == {"filter_narrow": "FAIL"}
        assert (
            "refuses hosts that the snapshots call trusted: h2, h3."
            in look.by_code["filter_narrow"]["text"]
        )

    def test_one_that_lets_others_pass(
        self, installation: Installation, instead: Callable[..., dict[str, Any]]
    ) -> None:
        look = installation.look(filterd=instead([*installation.wall.hosts, "stranger"]))
        assert look.bad == {"filter_wide": "FAIL"}
        assert "stranger" in look.by_code["filter_wide"]["text"]

    def test_one_that_sends_entities_or_escapes_for_a_terminal(
        self, installation: Installation, instead: Callable[..., dict[str, Any]]
    ) -> None:
        """Any user of the machine may hold the port while filterd is down."""
        options = instead([], {"filters": {"\x7f]0;evil" + "x" * 500: ["", ""]}})
        assert len(installation.look(filterd=options).by_code["filterd_foreign"]["text"]) < 250
        done = installation.run()
        assert "?]0;evil" in done.output
        with http_server(b'<!DOCTYPE x [<!ENTITY a "b">]><methodResponse/>') as port:
            look = installation.look(filterd={"server": {"port": port}})
        assert "its answer has a document type" in look.by_code["filterd_silent"]["text"]


@contextlib.contextmanager
def http_server(content: bytes) -> Iterator[int]:
    """Answer every request with these bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class TestScheduler:
    """What `engine-config` shows of the engine's external scheduler."""

    @pytest.mark.parametrize(
        ("enabled", "url", "response_ms", "bad"),
        [
            ("false", "", "3000", {"scheduler_disabled": "FAIL"}),
            ("true", "http://localhost:18781/", "3000", {"scheduler_elsewhere": "FAIL"}),
            ("true", "http://proxy.lab:PORT/", "3000", {"scheduler_elsewhere": "FAIL"}),
            ("true", "", "120000", {"scheduler_timeout": "warning"}),
            ("true", "", "soon", {"not_checked": "not checked"}),
            ("true", "http://[::1/", "3000", {"not_checked": "not checked"}),
        ],
    )
    def test_an_option_that_is_wrong(
        self,
        installation: Installation,
        enabled: str,
        url: str,
        response_ms: str,
        bad: dict[str, str],
    ) -> None:
        place = (url or "http://127.0.0.1:PORT/").replace(
            "PORT", str(installation.filterd["server"]["port"])
        )
        assert installation.look(engine=(enabled, place, response_ms)).bad == bad

    def test_another_machine_than_the_engines(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        done = CliRunner().invoke(
            main,
            [
                "--config-dir",
                str(installation.directory),
                "doctor",
                "--engine-config",
                str(tmp_path / "none"),
            ],
        )
        assert "run this on the engine machine, as root" in done.output

    def test_the_command_itself(
        self, installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(installation, "engine_config", engine_config.install(tmp_path)[0])
        look = installation.look(engine=())
        assert {
            "scheduler_disabled": "FAIL",
            "scheduler_timeout": "warning",
        }.items() <= look.bad.items()


class TestBroker:
    def test_nobody_there(self, installation: Installation) -> None:
        look = installation.look(cli={"broker": {"url": "http://127.0.0.1:1"}})
        assert look.bad == {"broker_silent": "FAIL", "not_checked": "not checked"}
        unmade = [one["check"] for one in look.found if one["state"] == "not checked"]
        assert unmade == ["charge", "wall_hosts", "hosts", "lockdown", "quarantine", "guard"]

    def test_a_token_that_it_does_not_take(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("wrong")
        (tmp_path / "token").chmod(0o600)
        look = installation.look(cli={"broker": {"token_file": str(tmp_path / "token")}})
        assert "refused (unauthenticated)" in look.by_code["broker_silent"]["text"].lower()


class TestServers:
    def test_nobody_there(self, installation: Installation) -> None:
        look = installation.look({"verifier": {"urls": ["https://127.0.0.1:1"]}})
        assert look.bad == {"server_unreachable": "FAIL", "not_checked": "not checked"}
        assert [one["check"] for one in look.found if one["state"] == "not checked"] == ["clocks"]
        assert "https://127.0.0.1:1 does not answer" in look.by_code["server_unreachable"]["text"]

    def test_one_of_two_away_is_a_warning(self, installation: Installation) -> None:
        urls = ["https://127.0.0.1:1", *installation.options["verifier"]["urls"]]
        look = installation.look({"verifier": {"urls": urls}})
        assert (look.bad, look.status) == ({"server_unreachable": "warning"}, 0)

    def test_a_certificate_of_another_authority(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        Authority.create(tmp_path, datetime.datetime.now(datetime.timezone.utc))
        look = installation.look({"verifier": {"ca_file": str(tmp_path / "ca.pem")}})
        assert look.bad["server_certificate"] == "FAIL"
        assert "certificate in certificate chain" in look.by_code["server_certificate"]["text"]

    def test_a_missing_authority(self, installation: Installation, tmp_path: Path) -> None:
        look = installation.look({"verifier": {"ca_file": str(tmp_path / "ca.pem")}})
        assert look.bad["server_certificate"] == "FAIL"
        assert "ca.pem cannot be read" in look.by_code["server_certificate"]["text"]

    def test_a_token_that_it_does_not_take(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("wrong")
        (tmp_path / "token").chmod(0o600)
        look = installation.look({"verifier": {"token_file": str(tmp_path / "token")}})
        assert look.bad == {"server_token": "FAIL"}

    def test_a_token_that_is_missing_is_said(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        look = installation.look({"verifier": {"token_file": str(tmp_path / "token")}})
        assert [one["check"] for one in look.found if one["state"] == "not checked"] == [
            "servers",
            "records",
            "clocks",
        ]
        assert "the verifier's token cannot be read" in look.by_code["not_checked"]["text"]

    def test_an_open_attestation_server_is_asked_in_its_own_way(
        self, installation: Installation
    ) -> None:
        token = (installation.directory / "viewer.token").read_text().strip()
        verifier = {"kind": "oat-2", "token_file": None, "auth_blob": token}
        assert installation.look({"verifier": verifier}).bad == {}
        assert installation.look({"verifier": {**verifier, "auth_blob": "wrong"}}).bad == {
            "server_token": "FAIL"
        }

    def test_another_kind_of_server_at_the_address(self, installation: Installation) -> None:
        verifier = {"kind": "oat-2", "token_file": None, "path": "/nowhere", "auth_blob": "x"}
        look = installation.look({"verifier": verifier})
        assert look.bad == {"server_answer": "FAIL"}
        assert "answers with status 404" in look.by_code["server_answer"]["text"]

    @pytest.mark.parametrize("ahead", [3600, -3600])
    def test_a_clock_that_differs(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch, ahead: float
    ) -> None:
        ahead_s = peers._ahead_s
        monkeypatch.setattr(peers, "_ahead_s", lambda date: ahead + (ahead_s(date) or 0))
        look = installation.look()
        assert (look.bad, look.status) == ({"clock_differs": "warning"}, 0)
        assert ("ahead of" if ahead > 0 else "behind") in look.by_code["clock_differs"]["text"]

    def test_a_certificate_that_ends_soon(self) -> None:
        three_days_s = 3 * 86_400 + 60
        (one,) = services.servers(
            [
                ServerView(
                    "https://attest.lab", status=200, good=True, certificate_ends_s=three_days_s
                )
            ]
        )
        assert (one.state, one.code) == (FindingState.WARNING, "certificate_ends")
        assert "ends in 3 days" in one.text

    def test_what_the_server_says_is_to_be_done_and_an_authority_that_ends(self) -> None:
        view = ServerView(
            "https://attest.lab",
            status=200,
            good=True,
            certificate_ends_s=61 * 86_400,
            authorities_end_s=59 * 86_400,
            duties=(("the token ends in 4 days: x", "make another one"),),
        )
        found = list(services.servers([view]))
        assert [item.code for item in found] == ["authority_ends", "upkeep"]
        assert "the token ends in 4 days: x." in found[1].text

    def test_rows_that_a_server_cannot_read(self) -> None:
        (finding,) = services.records(
            [
                ServerView("https://a.lab", status=200, good=True),
                ServerView("https://b.lab", status=200, good=True, unreadable_rows=3),
            ]
        )
        assert (finding.state, finding.code) == (FindingState.WARNING, "server_records")
        assert finding.text == "3 rows in the database of https://b.lab cannot be read."

    @pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT"])
    def test_a_server_that_does_not_tell_the_time(self, date: str) -> None:
        assert peers._ahead_s(date) is None


def test_a_name_comes_with_its_addresses() -> None:
    assert {"localhost", "127.0.0.1"} <= peers.addresses("https://LOCALHOST.:8443/x")
    assert peers.addresses("https://no-such-name.invalid") == {"no-such-name.invalid"}


def test_filterd_is_asked_for_the_largest_pool_in_the_engines_shape() -> None:
    """It reads a list of thousands of hosts in no other."""
    hosts = [f"{number:036d}" for number in range(10_000)]
    call = xmlrpc_codec.parse_call(
        filterd_client._as_the_engine("runFilters", (["TrustedHosts"], hosts, "vm", {})).encode()
    )
    assert call == xmlrpc_codec.Call("runFilters", (["TrustedHosts"], hosts, "vm", {}))


class LargeSite:
    """Stands in for the command's connection to a broker of more than 1,000 pools."""

    def call(self, method: str, path: str) -> dict[str, object]:
        if path == "/v1/hosts":
            return {
                "hosts": [large_host(number) for number in range(12_000)],
                "servers_answer": True,
            }
        return {"pools": [large_pool(number) for number in range(1_200)]}


def large_host(number: int) -> dict[str, object]:
    return {
        "id": f"h{number}",
        "name": f"host-{number}",
        "level": "trusted",
        "code": "",
        "quarantined": False,
    }


def large_pool(number: int) -> dict[str, object]:
    return {
        "cluster_id": f"c{number}",
        "name": f"Pool {number}",
        "scope": "all_vms",
        "guard_tripped": False,
        "held": [],
    }


def test_a_broker_of_a_large_site_makes_sense() -> None:
    view = peers.broker(cast(Remote, LargeSite()))
    assert len(view.hosts) == 12_000
    assert len(view.pools) == 1_200


def test_secrets_that_others_may_read(installation: Installation) -> None:
    tokens = [installation.directory / name for name in ("viewer.token", "api.token")]
    for path in tokens:
        path.chmod(0o644)
    findings = [found for found in installation.look().found if found["code"] == "secret_mode"]
    for path in tokens:
        path.chmod(0o600)
    assert [found["state"] for found in findings] == ["warning", "warning"]
    for path, found in zip(tokens, findings):
        assert str(path) in found["text"]
        assert f"chmod 600 {path}" in found["next"]
