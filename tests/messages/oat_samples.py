# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OEM, OS, MLE, PCR and host as OpenAttestation's tools write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHA1, SHA256, SHA384 = "1A" * 20, "2b" * 32, "3c" * 48


OEM = {"Name": "OEM1", "Description": "a maker"}


OS = {"Name": "OS1", "Version": "v1", "Description": ""}


VMM: Mapping[str, Any] = {
    "Name": "NewMLE2",
    "Version": "v123",
    "OsName": "OS1",
    "OsVersion": "v1",
    "Attestation_Type": "PCR",
    "MLE_Type": "VMM",
    "Description": "Test",
    "MLE_Manifests": [{"Name": "18", "Value": SHA256}],
}


BIOS = {
    **VMM,
    "Name": "NewMLE1",
    "MLE_Type": "BIOS",
    "OemName": "OEM1",
    "MLE_Manifests": [{"Name": "0", "Value": SHA1}],
}


PCR = {
    "pcrName": "8",
    "pcrDigest": SHA1,
    "mleName": "NewMLE1",
    "mleVersion": "v123",
    "oemName": "OEM1",
}


HOST = {
    "HostName": "His8",
    "IPAddress": "192.168.1.1",
    "Port": "9999",
    "BIOS_Name": "NewMLE1",
    "BIOS_Version": "v123",
    "BIOS_Oem": "OEM1",
    "VMM_Name": "NewMLE2",
    "VMM_Version": "v123",
    "VMM_OSName": "OS1",
    "VMM_OSVersion": "v1",
    "Email": "",
    "AddOn_Connection_String": "",
    "Description": "",
}
