# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OEM, OS, MLE, PCR and host as OpenAttestation's tools write them, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import oat_whitelist
from ovirt_tcp_plugin.messages.oat_whitelist import Owner, Pcr
from tests.messages.oat_samples import BIOS, HOST, OEM, OS, PCR, SHA1, SHA256, SHA384, VMM

DECODERS: Mapping[str, tuple[Callable[[Mapping[str, object]], object], Mapping[str, Any]]] = {
    "oem": (oat_whitelist.decode_oem, OEM),
    "os": (oat_whitelist.decode_os, OS),
    "mle": (oat_whitelist.decode_mle, VMM),
    "bios": (oat_whitelist.decode_mle, BIOS),
    "pcr": (oat_whitelist.decode_pcr, PCR),
    "pcr index": (oat_whitelist.pcr_index_in, PCR),
    "mle name": (oat_whitelist.mle_name_in, PCR),
    "host": (oat_whitelist.decode_host, HOST),
    "host change": (oat_whitelist.decode_host_change, HOST),
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=120) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["Name", "Value", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "name",
        [
            None,
            7,
            "",
            "x" * 51,
            "a#b",
            "a&b",
            "a+b",
            "a:b",
            'a"b',
            "a'b",
            "a\nb",
            "\ud800",
            "nul\0",
        ],
    )
    @pytest.mark.parametrize(
        ("kind", "member"),
        [("oem", "Name"), ("os", "Version"), ("mle", "OsName"), ("bios", "Name")],
    )
    def test_a_name_that_is_none(self, kind: str, member: str, name: object) -> None:
        decode, good = DECODERS[kind]
        with pytest.raises(errors.Refused, match=rf"\(500\): {member} "):
            decode({**good, member: name})

    @pytest.mark.parametrize(
        "digest", [None, "", "@" * 49, "1A" * 19, "xx" * 20, "1a" * 64, "\uff11" * 40]
    )
    def test_a_value_that_is_no_digest(self, digest: object) -> None:
        with pytest.raises(errors.Refused, match="pcrDigest must be 40 hex digits"):
            oat_whitelist.decode_pcr({**PCR, "pcrDigest": digest})
        with pytest.raises(errors.Refused, match="Value must be 40 hex digits"):
            oat_whitelist.decode_mle({**VMM, "MLE_Manifests": [{"Name": "18", "Value": digest}]})

    @pytest.mark.parametrize("index", [None, 8, "", "24", "-1", "8 ", "1e1", "\u0668", "008"])
    def test_a_pcr_that_is_none(self, index: object) -> None:
        with pytest.raises(errors.Refused, match="pcrName must be the number of a PCR, 0 to 23"):
            oat_whitelist.decode_pcr({**PCR, "pcrName": index})

    @pytest.mark.parametrize(
        "given", ["x", 1, [1], [None], [{}], [{"Name": "18"}], [{"Name": "1", "Value": SHA1}] * 300]
    )
    def test_values_that_are_none(self, given: object) -> None:
        with pytest.raises(errors.Refused, match=r"\(500\)"):
            oat_whitelist.decode_mle({**VMM, "MLE_Manifests": given})

    @pytest.mark.parametrize(
        ("member", "wrong", "code"),
        [("MLE_Type", "HYPERVISOR", "1006"), ("Attestation_Type", "MODULE", "500")],
    )
    def test_an_mle_of_a_kind_that_there_is_not(self, member: str, wrong: str, code: str) -> None:
        with pytest.raises(errors.Refused) as refused:
            oat_whitelist.decode_mle({**VMM, member: wrong})
        assert refused.value.code == code

    @pytest.mark.parametrize("member", ["BIOS_Oem", "BIOS_Version", "VMM_OSVersion", "VMM_Name"])
    def test_a_host_that_names_an_mle_by_half(self, member: str) -> None:
        with pytest.raises(errors.Refused, match="2001"):
            oat_whitelist.decode_host({**HOST, member: ""})

    def test_a_host_without_any_mle(self) -> None:
        with pytest.raises(errors.Refused, match="2001"):
            oat_whitelist.decode_host({"HostName": "his8"})

    @pytest.mark.parametrize(
        ("member", "wrong"),
        [
            ("HostName", ""),
            ("HostName", "x" * 256),
            ("Description", "x" * 101),
            ("Port", -1),
            ("Email", []),
            ("pcrIMLMask", "1"),
        ],
    )
    def test_a_host_with_a_wrong_member(self, member: str, wrong: object) -> None:
        with pytest.raises(errors.Refused, match="500"):
            oat_whitelist.decode_host({**HOST, member: wrong})

    @given(st.sampled_from(sorted(DECODERS)), st.data())
    def test_anything_is_read_or_refused(self, kind: str, data: st.DataObject) -> None:
        decode, good = DECODERS[kind]
        members = dict(good)
        for member in data.draw(st.lists(st.sampled_from(sorted(good)), max_size=4)):
            members[member] = data.draw(anything)
        with contextlib.suppress(errors.Refused):
            decode(members)


@pytest.mark.parametrize(
    ("digest", "bank"), [(SHA1, "sha1"), (SHA256, "sha256"), (SHA384, "sha384")]
)
def test_a_digests_length_tells_its_bank(digest: str, bank: str) -> None:
    assert oat_whitelist.decode_pcr({**PCR, "pcrDigest": digest}) == Pcr(8, bank, digest.lower())


def test_reads_both_kinds_of_mle() -> None:
    vmm, bios = oat_whitelist.decode_mle(VMM), oat_whitelist.decode_mle(BIOS)
    assert (vmm.name.owner, vmm.name.owner.kind, vmm.pcrs) == (
        Owner("OS1", "v1"),
        "VMM",
        (Pcr(18, "sha256", SHA256),),
    )
    assert (bios.name.owner, bios.name.owner.kind, bios.pcrs) == (
        Owner("OEM1"),
        "BIOS",
        (Pcr(0, "sha1", SHA1.lower()),),
    )
    for mle in (vmm, bios):
        assert oat_whitelist.owner_of(oat_whitelist.encode_mle(mle)) == mle.name.owner


def test_reads_one_value_that_jersey_wrote_without_its_array() -> None:
    bare = {**VMM, "MLE_Manifests": VMM["MLE_Manifests"][0]}
    assert oat_whitelist.decode_mle(bare) == oat_whitelist.decode_mle(VMM)


def test_what_an_mle_does_not_have_is_the_text_null() -> None:
    assert oat_whitelist.encode_mle(oat_whitelist.decode_mle(VMM))["OemName"] == "null"
    assert oat_whitelist.encode_mle(oat_whitelist.decode_mle(BIOS))["OsVersion"] == "null"


def test_a_host_keeps_what_is_said_of_it_and_names_its_mles() -> None:
    host = oat_whitelist.decode_host({**HOST, "Port": 9999, "Unknown": 1})
    assert host.name == "his8"
    assert host.record == {**HOST, "Location": "", "pcrIMLMask": "000000"}
    assert [mle.owner for mle in host.mles] == [Owner("OEM1"), Owner("OS1", "v1")]


def test_a_change_of_a_host_names_no_mle() -> None:
    name, changes = oat_whitelist.decode_host_change({**HOST, "Email": "a@b"})
    assert (name, set(changes)) == ("his8", set(oat_whitelist.HOST_CHANGES))


def test_an_ipv6_literal_may_be_registered() -> None:
    assert oat_whitelist.decode_host({**HOST, "HostName": "2001:DB8::1"}).name == "2001:db8::1"
