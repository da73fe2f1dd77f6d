# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The codec takes what the Java client writes, and any other bytes give one declared error."""

from __future__ import annotations

import contextlib
import time
import xmlrpc.client
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.lab.engine import external_scheduler
from ovirt_tcp_plugin.scheduler import xmlrpc as codec

CALL = external_scheduler.request(
    "runFilters", [["TrustedHosts"], ["h1", "h2"], "vm", {"trust_scope": "all_vms"}]
)

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<methodCall><methodName>&b;</methodName></methodCall>"""


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"rubbish", id="no XML"),
        pytest.param(CALL[:-1], id="cut off"),
        pytest.param(BOMB, id="entities"),
        pytest.param(
            b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><methodCall/>', id="external entity"
        ),
        pytest.param(b"<methodResponse/>", id="no call"),
        pytest.param(b"<methodCall>" + b"<value>" * 10_000, id="deep"),
        pytest.param(b"<methodCall><value/></methodCall>", id="value nowhere"),
        pytest.param(b"<methodCall><member/></methodCall>", id="member nowhere"),
        pytest.param(b"x" * (codec.MAX_REQUEST_SIZE + 1), id="long"),
        pytest.param(b"<a>" + b"<b/>" * 60_000 + b"</a>", id="many"),
    ],
)
def test_refuses_what_is_no_call(body: bytes) -> None:
    with pytest.raises(errors.InvalidMessage, match="malformed XML-RPC call"):
        codec.parse_call(body)


@given(st.binary(max_size=2000))
def test_any_bytes_give_a_call_or_the_one_error(body: bytes) -> None:
    with contextlib.suppress(errors.InvalidMessage):
        codec.parse_call(body)


@given(st.integers(0, len(CALL) - 1), st.binary(max_size=8), st.integers(0, 20))
def test_a_mutated_call_gives_a_call_or_the_one_error(
    position: int, inserted: bytes, removed: int
) -> None:
    with contextlib.suppress(errors.InvalidMessage):
        codec.parse_call(CALL[:position] + inserted + CALL[position + removed :])


def test_reads_what_the_java_client_writes() -> None:
    call = codec.parse_call(CALL)
    assert call.method == "runFilters"
    assert call.parameters == (["TrustedHosts"], ["h1", "h2"], "vm", {"trust_scope": "all_vms"})


@pytest.mark.parametrize("encoding", [b"UTF-8", b"UTF-16", b"EBCDIC-CP-US", b"unheard-of"])
def test_the_caller_does_not_choose_the_codec(encoding: bytes) -> None:
    declared = b'<?xml version="1.0" encoding="' + encoding + b'"?>'
    body = declared + b"<methodCall><methodName>discover</methodName></methodCall>"
    assert codec.parse_call(body) == codec.Call("discover", ())


PLAIN = st.text("abcdef0123456789-_.", max_size=6)


@given(st.lists(PLAIN), st.lists(PLAIN), PLAIN, st.dictionaries(PLAIN, PLAIN))
def test_the_quick_way_and_expat_read_the_same(
    names: list[str], hosts: list[str], vm: str, given: dict[str, str]
) -> None:
    body = external_scheduler.request("runFilters", [names, hosts, vm, given])
    call = codec.Call("runFilters", (names, hosts, vm, given))
    assert codec._usual(body) == codec._any(body) == call


PIECES = st.binary(max_size=8) | st.sampled_from([b"<value>", b"</value>", b"a"])


def read(reader: Callable[[bytes], codec.Call | None], body: bytes) -> codec.Call | None:
    """Return the call that `reader` finds, None where it finds none."""
    try:
        return reader(body)
    except errors.InvalidMessage:
        return None


@given(st.integers(0, len(CALL) - 1), PIECES, st.integers(0, 20))
def test_what_the_quick_way_takes_expat_takes_too(
    position: int, inserted: bytes, removed: int
) -> None:
    body = CALL[:position] + inserted + CALL[position + removed :]
    call = read(codec._usual, body)
    assert call is None or call == read(codec._any, body)


@given(st.integers(0, len(CALL) - 1), PIECES, st.integers(0, 20))
def test_what_expat_reads_is_read_the_same_by_both_ways_together(
    position: int, inserted: bytes, removed: int
) -> None:
    body = CALL[:position] + inserted + CALL[position + removed :]
    assert read(codec.parse_call, body) == read(codec._any, body)


def test_what_the_engine_sends_every_day_takes_the_quick_way() -> None:
    assert codec._usual(CALL) is not None
    assert codec._usual(CALL.replace(b"h1", b"<string>h1</string>")) is None


HOSTS = [f"{number:036d}" for number in range(codec.MAX_HOSTS)]


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"trust_scope": "all_vms"},
        {"another unit's": "a value & of <its> own"},
        {"k": None},
        {"k": ""},
    ],
)
def test_ten_thousand_hosts_are_read_whatever_properties_other_units_have(
    properties: dict[str, str],
) -> None:
    call = codec.parse_call(
        external_scheduler.request("runFilters", [["TrustedHosts"], HOSTS, "vm", properties])
    )
    assert call.parameters == (["TrustedHosts"], HOSTS, "vm", properties)


def call_of(hosts: list[str]) -> bytes:
    return external_scheduler.request("runFilters", [["TrustedHosts"], hosts, "vm", {}])


# As long as any that is looked into, or a little longer.
FULL = codec.MAX_REQUEST_SIZE
DEAR = [
    pytest.param(call_of([*HOSTS, "one more"]), id="more hosts than a pool has"),
    pytest.param(call_of([""] * 30_000), id="empty ids"),
    pytest.param(
        call_of(HOSTS[:5000]).replace(b"<value>", b"<value><string>"), id="typed, half of the tags"
    ),
    pytest.param(
        xmlrpc.client.dumps((["TrustedHosts"], HOSTS[:6000], "vm", {}), "runFilters").encode(),
        id="Python's",
    ),
    pytest.param(b"<methodCall>" + b"<value>" * (FULL // 8), id="values without an end"),
    pytest.param(b"<a>" + b"<b/>" * (FULL // 5) + b"</a>", id="many tags"),
    pytest.param(b"<a " + b'b="" ' * (FULL // 6) + b"/>", id="many attributes"),
    pytest.param(b"<a>" + b"&amp;" * (FULL // 6) + b"</a>", id="many entities"),
    pytest.param(CALL[: CALL.index(b"h1")] + b"h" * (FULL // 2), id="a host without an end"),
    pytest.param(
        CALL[: CALL.index(b"TrustedHosts")] + b"<value>x</value>" * (FULL // 20),
        id="names without an end",
    ),
    pytest.param(CALL.replace(b"all_vms", b"x" * (FULL // 2)), id="a long property"),
    pytest.param(
        CALL.replace(b"<member>", b"<member><name>a</name><value>b</value></member>" * 9000),
        id="members",
    ),
    pytest.param(CALL[:-13] + b" " * (FULL // 2), id="blanks without an end"),
    pytest.param(b"x" * FULL, id="rubbish"),
    pytest.param(b"x" * (FULL + 1), id="too long"),
]


@pytest.mark.parametrize("body", DEAR)
def test_nobody_makes_a_refusal_dear(body: bytes) -> None:
    """expat would take a quarter of a second for some of these; a peer that sends many would keep
    the engine out."""
    took_ms = []
    for _ in range(5):
        began = time.thread_time()
        with pytest.raises(errors.InvalidMessage):
            codec.parse_call(body)
        took_ms.append((time.thread_time() - began) * 1000)
    # 0 to 5 ms here. The bound is for a machine that also counts the lines run.
    assert min(took_ms) < 25


def test_what_expat_gets_is_short() -> None:
    """The dearest call in another shape than the engine's."""
    tags = b"<methodCall>" + b"<a/>" * (codec.MAX_TAGS - 2) + b"</methodCall>"
    took_ms = []
    for _ in range(5):
        began = time.thread_time()
        with pytest.raises(errors.InvalidMessage, match="no methodCall"):
            codec.parse_call(tags)
        took_ms.append((time.thread_time() - began) * 1000)
    assert min(took_ms) < 25


def test_reads_nulls_empty_maps_and_typed_values() -> None:
    assert codec.parse_call(external_scheduler.request("x", [None, {}, [], ""])).parameters == (
        None,
        {},
        [],
        "",
    )
    typed = xmlrpc.client.dumps((["a"], {"k": "v"}, "t", 5), "y").encode()
    assert codec.parse_call(typed).parameters == (["a"], {"k": "v"}, "t", "5")


def test_nested_lists_keep_their_order() -> None:
    call = external_scheduler.request(
        "runCostFunctions", [[["a", "1"], ["b", "2"]], ["h"], "vm", {"k": "v", "l": "w"}]
    )
    assert codec.parse_call(call).parameters == (
        [["a", "1"], ["b", "2"]],
        ["h"],
        "vm",
        {"k": "v", "l": "w"},
    )


@given(
    st.recursive(
        st.text() | st.integers(-(2**31), 2**31 - 1),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_every_answer_is_well_formed_and_has_no_extension_type(value: object) -> None:
    answer = codec.encode_answer(value)
    xmlrpc.client.loads(answer)
    assert b"<nil" not in answer
    assert b"<i8" not in answer


def test_an_answer_reads_back_as_it_was() -> None:
    value = {"result_code": 0, "result": ["h1", "<&>"], "errors": [], "plugin_errors": {}}
    ((read,), _) = xmlrpc.client.loads(codec.encode_answer(value))
    assert read == value


@pytest.mark.parametrize("value", [None, 2**31, True, 1.5])
def test_what_the_engine_could_not_read_is_never_written(value: object) -> None:
    with pytest.raises(TypeError):
        codec.encode_answer(value)
