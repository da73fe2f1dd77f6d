# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's whitelist and its registration of hosts, for its tools.

OpenAttestation asked nobody who he was; here a viewer may look, and a policy administrator may
change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.messages import oat, oat_whitelist
from ovirt_tcp_plugin.verifier import whitelist
from ovirt_tcp_plugin.verifier.store import oat_records
from ovirt_tcp_plugin.verifier.web.access import Caller
from ovirt_tcp_plugin.verifier.web.handler import Handler, log

# Statuses of OpenAttestation's codes, where they are not 400.
_STATUS = {404: 404, 500: 500}

Change = Callable[[Connection], None]


class _Whitelist(Handler):
    callers = frozenset({Caller.VIEWER})
    writers = frozenset({Caller.POLICY})
    # Whether hosts are judged by what is changed here.
    judged_by = True

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters behind the path, each once."""
        return {name: self.get_query_argument(name) for name in self.request.query_arguments}

    async def read(self, work: Callable[[Connection], Any]) -> None:
        """Answer what the work returns."""
        self.answer(await self.context.database.read(work))

    async def change(self, work: Change, status: int = 200) -> None:
        """Do the work, have every host judged again, and answer `True`, as OpenAttestation does."""
        await self.context.database.write(work)
        if self.judged_by:
            await self.context.attestation.judge_all()
        log.info("whitelist changed path=%a method=%s", self.request.path, self.request.method)
        self.set_status(status)
        self.set_header("Content-Type", "text/plain")
        self.finish("True")

    def answer_error(self, status: int, code: str, reason: str) -> None:
        number = int(code) if code.isdecimal() else status
        self.set_status(_STATUS.get(number, 400) if code.isdecimal() else status)
        self.answer(oat.encode_fault(number, reason))


class Oems(_Whitelist):
    """Makers of machines."""

    judged_by = False

    async def get(self) -> None:
        await self.read(lambda c: oat_records.every(c, oat_records.OEM))

    async def post(self) -> None:
        oem = oat_whitelist.decode_oem(self.body("OEM"))
        await self.change(lambda c: whitelist.add_owner(c, oem))

    async def put(self) -> None:
        oem = oat_whitelist.decode_oem(self.body("OEM"))
        await self.change(lambda c: whitelist.change_owner(c, oem))

    async def delete(self) -> None:
        owner = oat_whitelist.owner_in(self.query, "Name")
        await self.change(lambda c: whitelist.remove_owner(c, owner))


class OperatingSystems(_Whitelist):
    """Operating systems, by name and version."""

    judged_by = False

    async def get(self) -> None:
        await self.read(lambda c: oat_records.every(c, oat_records.OS))

    async def post(self) -> None:
        system = oat_whitelist.decode_os(self.body("OS"))
        await self.change(lambda c: whitelist.add_owner(c, system))

    async def put(self) -> None:
        system = oat_whitelist.decode_os(self.body("OS"))
        await self.change(lambda c: whitelist.change_owner(c, system))

    async def delete(self) -> None:
        owner = oat_whitelist.owner_in(self.query, "Name", "Version")
        await self.change(lambda c: whitelist.remove_owner(c, owner))


class Mles(_Whitelist):
    """Measured launch environments: the sets of reference values that OpenAttestation knows."""

    async def get(self) -> None:
        criteria = self.query.get("searchCriteria", "")
        await self.read(lambda c: whitelist.mles(c, criteria))

    async def post(self) -> None:
        mle = oat_whitelist.decode_mle(self.body("MLE"))
        await self.change(lambda c: whitelist.add_mle(c, mle))

    async def put(self) -> None:
        mle = oat_whitelist.decode_mle(self.body("MLE"))
        await self.change(lambda c: whitelist.change_mle(c, mle))

    async def delete(self) -> None:
        name = oat_whitelist.mle_name_in(self.query)
        await self.change(lambda c: whitelist.remove_mle(c, name))


class MleManifest(_Whitelist):
    """One MLE with its values."""

    async def get(self) -> None:
        name = oat_whitelist.mle_name_in(self.query)
        await self.read(lambda c: whitelist.mle(c, name))


class MlePcrs(_Whitelist):
    """The values of an MLE, one by one."""

    async def post(self) -> None:
        name, pcr = self._name_and_pcr()
        await self.change(lambda c: whitelist.add_pcr(c, name, pcr))

    async def put(self) -> None:
        name, pcr = self._name_and_pcr()
        await self.change(lambda c: whitelist.change_pcr(c, name, pcr))

    async def delete(self) -> None:
        name = oat_whitelist.mle_name_in(self.query)
        index = oat_whitelist.pcr_index_in(self.query)
        await self.change(lambda c: whitelist.remove_pcr(c, name, index))

    def _name_and_pcr(self) -> tuple[oat_whitelist.MleName, oat_whitelist.Pcr]:
        members = self.body("PCR")
        return oat_whitelist.mle_name_in(members), oat_whitelist.decode_pcr(members)


class RegisteredHosts(_Whitelist):
    """Hosts and the MLEs that they are judged by.

    To be attested, a host has to be enrolled, too.
    """

    async def get(self) -> None:
        criteria = self.query.get("searchCriteria", "")
        await self.read(lambda c: whitelist.hosts(c, criteria))

    async def post(self) -> None:
        host = oat_whitelist.decode_host(self.body("host"))
        await self.change(lambda c: whitelist.add_host(c, host))

    async def put(self) -> None:
        name, changes = oat_whitelist.decode_host_change(self.body("host"))
        await self.change(lambda c: whitelist.change_host(c, name, changes), 202)

    async def delete(self) -> None:
        name = oat_whitelist.host_name_in(self.query, "hostName").lower()
        await self.change(lambda c: whitelist.remove_host(c, name))
