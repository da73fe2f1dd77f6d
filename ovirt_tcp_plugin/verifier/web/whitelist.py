# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's whitelist and its registration of hosts, for its tools.

OpenAttestation did not authenticate its callers; here a viewer may look, and a policy administrator
may change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.messages import oat, oat_whitelist
from ovirt_tcp_plugin.messages.oat_whitelist import MleName, Owner, Pcr, Record
from ovirt_tcp_plugin.verifier.store import oat_records
from ovirt_tcp_plugin.verifier.web.access import CallerKind
from ovirt_tcp_plugin.verifier.web.handler import Handler, log
from ovirt_tcp_plugin.verifier.whitelist import Whitelist

# Statuses of OpenAttestation's codes, where they are not 400.
_STATUS = {404: 404, 500: 500}


class _WhitelistHandler(Handler):
    callers = frozenset({CallerKind.VIEWER})
    writers = frozenset({CallerKind.POLICY})
    # Whether hosts are judged by what is changed here.
    judged_by = True

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters behind the path, each once."""
        return {name: self.get_query_argument(name) for name in self.request.query_arguments}

    @property
    def criteria(self) -> str:
        """The text that is searched for; the empty one is everywhere."""
        return self.query.get("searchCriteria", "")

    async def list_as(self, wrapper: str, select: Callable[[Whitelist], Any]) -> None:
        """Answer the list that `select` returns, as the only member of an object."""
        await self.read(lambda whitelist: {wrapper: select(whitelist)})

    async def read(self, select: Callable[[Whitelist], Any]) -> None:
        """Answer what `select` returns."""

        def work(connection: Connection) -> Any:
            return select(Whitelist(connection))

        selected = await self.context.database.read(work)
        self.answer(selected)

    async def change(self, change: Callable[[Whitelist], None], status: int = 200) -> None:
        """Change it, have every host judged again, and answer `True`, as OpenAttestation does."""

        def work(connection: Connection) -> None:
            change(Whitelist(connection))

        await self.context.database.write(work)
        if self.judged_by:
            await self.context.attestation.judge_all()
        log.info("whitelist changed path=%a method=%s", self.request.path, self.request.method)
        self.set_status(status)
        self.set_header("Content-Type", "text/plain")
        self.finish("True")

    def answer_error(self, status: int, code: str, reason: str) -> None:
        number = status
        if code.isdecimal():
            number = int(code)
            status = _STATUS.get(number, 400)
        self.set_status(status)
        self.answer(oat.encode_fault(number, reason))


class _OwnersHandler(_WhitelistHandler):
    judged_by = False
    kind: str

    async def get(self) -> None:
        wrapper = oat_whitelist.WRAPPERS[self.kind]
        await self.list_as(wrapper, lambda whitelist: whitelist.owners(self.kind))

    async def post(self) -> None:
        record = self.record()
        await self.change(lambda whitelist: whitelist.add_owner(record))

    async def put(self) -> None:
        record = self.record()
        await self.change(lambda whitelist: whitelist.change_owner(record))

    async def delete(self) -> None:
        owner = self.owner()
        await self.change(lambda whitelist: whitelist.remove_owner(owner))

    def record(self) -> Record:
        """Return the record in the body. Raises InvalidMessage, Refused."""
        raise NotImplementedError

    def owner(self) -> Owner:
        """Return whom the query names. Raises Refused."""
        raise NotImplementedError


class Oems(_OwnersHandler):
    """Makers of machines."""

    kind = oat_records.OEM

    def record(self) -> Record:
        return oat_whitelist.decode_oem(self.body("OEM"))

    def owner(self) -> Owner:
        return oat_whitelist.owner_in(self.query, "Name")


class OperatingSystems(_OwnersHandler):
    """Operating systems, by name and version."""

    kind = oat_records.OS

    def record(self) -> Record:
        return oat_whitelist.decode_os(self.body("OS"))

    def owner(self) -> Owner:
        return oat_whitelist.owner_in(self.query, "Name", "Version")


class Mles(_WhitelistHandler):
    """Measured launch environments: the sets of reference values that OpenAttestation knows."""

    async def get(self) -> None:
        criteria = self.criteria
        wrapper = oat_whitelist.WRAPPERS[oat_records.MLE]
        await self.list_as(wrapper, lambda whitelist: whitelist.mles(criteria))

    async def post(self) -> None:
        mle = oat_whitelist.decode_mle(self.body("MLE"))
        await self.change(lambda whitelist: whitelist.add_mle(mle))

    async def put(self) -> None:
        mle = oat_whitelist.decode_mle(self.body("MLE"))
        await self.change(lambda whitelist: whitelist.change_mle(mle))

    async def delete(self) -> None:
        name = oat_whitelist.mle_name_in(self.query)
        await self.change(lambda whitelist: whitelist.remove_mle(name))


class MleManifest(_WhitelistHandler):
    """One MLE with its values."""

    async def get(self) -> None:
        name = oat_whitelist.mle_name_in(self.query)
        await self.read(lambda whitelist: whitelist.mle(name))


class MlePcrs(_WhitelistHandler):
    """The single values of an MLE."""

    async def post(self) -> None:
        name, pcr = self._name_and_pcr()
        await self.change(lambda whitelist: whitelist.add_pcr(name, pcr))

    async def put(self) -> None:
        name, pcr = self._name_and_pcr()
        await self.change(lambda whitelist: whitelist.change_pcr(name, pcr))

    async def delete(self) -> None:
        name = oat_whitelist.mle_name_in(self.query)
        index = oat_whitelist.pcr_index_in(self.query)
        await self.change(lambda whitelist: whitelist.remove_pcr(name, index))

    def _name_and_pcr(self) -> tuple[MleName, Pcr]:
        members = self.body("PCR")
        name = oat_whitelist.mle_name_in(members)
        return name, oat_whitelist.decode_pcr(members)


class RegisteredHosts(_WhitelistHandler):
    """Hosts and the MLEs that they are judged by.

    To be attested, a host has to be enrolled, too.
    """

    async def get(self) -> None:
        criteria = self.criteria
        wrapper = oat_whitelist.WRAPPERS[oat_records.HOST]
        await self.list_as(wrapper, lambda whitelist: whitelist.hosts(criteria))

    async def post(self) -> None:
        host = oat_whitelist.decode_host(self.body("host"))
        await self.change(lambda whitelist: whitelist.add_host(host))

    async def put(self) -> None:
        name, changes = oat_whitelist.decode_host_change(self.body("host"))
        await self.change(lambda whitelist: whitelist.change_host(name, changes), status=202)

    async def delete(self) -> None:
        name = oat_whitelist.host_name_in(self.query, "hostName").lower()
        await self.change(lambda whitelist: whitelist.remove_host(name))
