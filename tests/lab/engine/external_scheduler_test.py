# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's client of the external scheduler: what it writes, what it makes of an answer."""

from __future__ import annotations

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine import audit_log, external_scheduler
from tests.lab.engine.peers import Lab, ScriptedScheduler, envelope, reply_of


class TestAnswers:
    """Which answer keeps all hosts, which none, which breaks the command.

    Source: `ExternalSchedulerBrokerImpl`.
    """

    @pytest.mark.parametrize(
        "reply",
        [
            b"",
            b"rubbish",
            reply_of("<nil/>"),
            reply_of("<i8>5</i8>"),
            b"<?xml "
            b"version='1.0'?><methodResponse><fault><value><struct><member><name>faultCode</name><value>"
            b"<int>1</int></value></member><member><name>faultString</name><value>x</value></member></struct></value>"
            b"</fault></methodResponse>",
        ],
        ids=["closes", "rubbish", "nil", "i8", "fault"],
    )
    def test_no_answer_keeps_all_hosts(
        self, proxy: ScriptedScheduler, filtered: Lab, reply: bytes
    ) -> None:
        proxy.reply = reply
        filtered.session.vm_service("vm2").start()
        assert (filtered.journal()["external"], len(filtered.journal()["left"])) == ("kept", 3)  # type: ignore[arg-type]
        assert audit_log.SCHEDULER_UNREACHABLE in filtered.session.codes()

    @pytest.mark.parametrize(
        "reply",
        [
            envelope([]),
            reply_of(
                "<struct><member><name>result_code</name><value><int>0</int></value></member></struct>"
            ),
            reply_of("text"),
            envelope(["00000000-0000-0000-0000-00000000000f"]),
        ],
        ids=["empty list", "no result", "a text", "a stranger"],
    )
    def test_an_answer_without_our_hosts_keeps_none(
        self, proxy: ScriptedScheduler, filtered: Lab, reply: bytes
    ) -> None:
        proxy.reply = reply
        with pytest.raises(ovirtsdk4.Error, match=r"Operation Failed.*\[\]"):
            filtered.session.vm_service("vm2").start()

    def test_an_answer_without_result_code_breaks_the_command(
        self, proxy: ScriptedScheduler, filtered: Lab
    ) -> None:
        proxy.reply = reply_of("<struct/>")
        with pytest.raises(ovirtsdk4.Error, match="Internal Engine Error"):
            filtered.session.vm_service("vm2").start()

    def test_errors_are_logged_only_with_a_result_code(
        self, proxy: ScriptedScheduler, filtered: Lab
    ) -> None:
        proxy.reply = envelope([], 1, "PCR 17 differs")
        with pytest.raises(ovirtsdk4.Error):
            filtered.session.vm_service("vm2").start()
        (event,) = filtered.events.list(search=f"type={audit_log.SCHEDULER_ERROR}")
        assert "PCR 17 differs" in event.description

    def test_the_answer_is_cut_to_the_hosts_asked(
        self, proxy: ScriptedScheduler, filtered: Lab
    ) -> None:
        proxy.reply = envelope([filtered.session.host("h2").id])
        filtered.session.vm_service("vm1").migrate()
        filtered.session.vm_service("vm2").start()
        filtered.pass_time(6)
        assert filtered.session.place("vm2") == "h2"
        assert proxy.connections == 1

    def test_the_request_is_what_the_java_client_writes(
        self, proxy: ScriptedScheduler, filtered: Lab
    ) -> None:
        proxy.reply = envelope([])
        with pytest.raises(ovirtsdk4.Error):
            filtered.session.vm_service("vm2").start()
        body = proxy.asked[-1].decode()
        assert body.startswith(
            '<?xml version="1.0" encoding="UTF-8"?><methodCall xmlns:ex="http://ws.apache.org/'
        )
        assert (
            "<param><value><array><data><value>TrustedHosts</value></data></array></value></param>"
            in body
        )
        assert f"<param><value>{filtered.session.vm('vm2').id}</value></param>" in body
        assert "<member><name>trust_scope</name><value>all_vms</value></member>" in body
        assert "\n" not in body
        assert "<string>" not in body


def test_an_empty_map_and_a_null_travel_as_java_writes_them() -> None:
    body = external_scheduler.request("runFilters", [[], [], None, {}]).decode()
    assert body.endswith(
        "<params><param><value><array><data></data></array></value></param><param><value><array><data></data></array>"
        "</value></param><param><value><ex:nil/></value></param><param><value><struct/></value></param></params>"
        "</methodCall>"
    )
