# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The elements of VMs, hosts and clusters in an answer of an engine 4.5.8, in its order.

The values are of no engine. A VM is 10 KB and a host 7 KB, most of it the same for all: whoever
lists many has to read that much.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovirt_tcp_plugin.lab.engine.builtin import BLANK_TEMPLATE
from ovirt_tcp_plugin.lab.engine.xml_text import Template

API = "/ovirt-engine/api"

_VM_ACTIONS = (
    "ticket cancelmigration commitsnapshot clone freezefilesystems logon maintenance "
    "previewsnapshot autopincpuandnumanodes reordermacaddresses thawfilesystems undosnapshot "
    "screenshot reboot migrate shutdown start stop suspend reset export detach"
)
_VM_LINKS = (
    "nics numanodes watchdogs graphicsconsoles diskattachments cdroms mediateddevices snapshots "
    "applications hostdevices reporteddevices sessions backups checkpoints katelloerrata "
    "permissions tags affinitylabels statistics"
)
_HOST_ACTIONS = (
    "approve commitnetconfig enrollcertificate fence forceselectspm iscsidiscover discoveriscsi "
    "iscsilogin unregisteredstoragedomainsdiscover upgradecheck copyhostnetworks activate install "
    "deactivate syncallnetworks setupnetworks upgrade refresh"
)
_HOST_LINKS = (
    "fenceagents devices hooks nics numanodes storage networkattachments "
    "storageconnectionextensions unmanagednetworks externalnetworkproviderconfigurations cpuunits "
    "katelloerrata permissions tags affinitylabels statistics"
)
_CLUSTER_ACTIONS = "syncallnetworks refreshglusterhealstatus resetemulatedmachine upgrade"
_CLUSTER_LINKS = (
    "glusterhooks enabledfeatures externalnetworkproviders glustervolumes cpuprofiles "
    "networkfilters networks permissions affinitygroups"
)
# As long as a real one, and of no key.
PEM = (
    "-----BEGIN CERTIFICATE-----\n"
    + ("MIID" + "A" * 72 + "\n") * 15
    + "-----END CERTIFICATE-----\n"
)


def _links(relations: str, indent: str) -> str:
    return "\n".join(
        f'{indent}<link href="%(href)s/{relation}" rel="{relation}"/>'
        for relation in relations.split()
    )


def _whole(tag: str, actions: str, names: Sequence[str], links: str, body: str) -> Template:
    """Return an entity: its actions, its names, the links to what it has, and everything else."""
    head = [
        f'<{tag} href="%(href)s" id="%(id)s">',
        "    <actions>",
        _links(actions, "        "),
        "    </actions>",
        *names,
    ]
    rest = [part for part in (_links(links, "    "), body.strip("\n")) if part]
    return Template("\n".join([*head, *rest, f"</{tag}>"]))


def _bare(tag: str, actions: str, links: str) -> Template:
    """Return the entity of an action's answer: only what can be done with it, and what it has."""
    return _whole(tag, actions, (), links, "")


_NAMES = ("    <name>%(name)s</name>", "    <description></description>", "    <comment></comment>")

VM = _whole(
    "vm",
    _VM_ACTIONS,
    _NAMES,
    _VM_LINKS,
    """
    <auto_pinning_policy>disabled</auto_pinning_policy>
    <bios>
        <boot_menu>
            <enabled>false</enabled>
        </boot_menu>
        <type>q35_ovmf</type>
    </bios>
    <cpu>
        <architecture>x86_64</architecture>
        <topology>
            <cores>1</cores>
            <sockets>1</sockets>
            <threads>1</threads>
        </topology>
    </cpu>
    <cpu_pinning_policy>none</cpu_pinning_policy>
    <cpu_shares>0</cpu_shares>
    <creation_time>2026-01-01T08:00:00.000Z</creation_time>
    @custom_properties
    <delete_protected>false</delete_protected>
    <display>
        <allow_override>false</allow_override>
        @certificate
        <copy_paste_enabled>true</copy_paste_enabled>
        <disconnect_action>LOCK_SCREEN</disconnect_action>
        <disconnect_action_delay>0</disconnect_action_delay>
        <file_transfer_enabled>true</file_transfer_enabled>
        <monitors>1</monitors>
        <smartcard_enabled>false</smartcard_enabled>
        <type>vnc</type>
        <video_type>vga</video_type>
    </display>
    <high_availability>
        <enabled>%(ha)s</enabled>
        <priority>%(priority)s</priority>
    </high_availability>
    @initialization
    <io>
        <threads>1</threads>
    </io>
    <large_icon href="%(api)s/icons/%(large_icon)s" id="%(large_icon)s"/>
    <memory>268435456</memory>
    <memory_policy>
        <ballooning>true</ballooning>
        <guaranteed>134217728</guaranteed>
        <max>536870912</max>
    </memory_policy>
    <migration>
        <auto_converge>inherit</auto_converge>
        <compressed>inherit</compressed>
        <encrypted>inherit</encrypted>
        <parallel_migrations_policy>inherit</parallel_migrations_policy>
    </migration>
    <migration_downtime>-1</migration_downtime>
    <multi_queues_enabled>true</multi_queues_enabled>
    <origin>%(origin)s</origin>
    <os>
        <boot>
            <devices>
                <device>network</device>
            </devices>
        </boot>
        <type>other</type>
    </os>
    @placement_policy
    <small_icon href="%(api)s/icons/%(small_icon)s" id="%(small_icon)s"/>
    <sso>
        <methods>
            <method id="guest_agent"/>
        </methods>
    </sso>
    <start_paused>false</start_paused>
    <stateless>false</stateless>
    <storage_error_resume_behaviour>auto_resume</storage_error_resume_behaviour>
    <time_zone>
        <name>Etc/GMT</name>
    </time_zone>
    <type>server</type>
    <usb>
        <enabled>false</enabled>
    </usb>
    <virtio_scsi_multi_queues_enabled>false</virtio_scsi_multi_queues_enabled>
    @cluster
    <cpu_profile href="%(api)s/cpuprofiles/%(cpu_profile)s" id="%(cpu_profile)s"/>
    <quota id="%(quota)s"/>
    @fqdn
    <next_run_configuration_exists>%(next_run)s</next_run_configuration_exists>
    @run
    <status>%(status)s</status>
    <stop_time>2026-01-01T08:00:01.000Z</stop_time>
    @host
    <original_template href="%(api)s/templates/%(blank)s" id="%(blank)s"/>
    @reported_devices
    <template href="%(api)s/templates/%(blank)s" id="%(blank)s"/>
""",
)

HOST = _whole(
    "host",
    _HOST_ACTIONS,
    (_NAMES[0], _NAMES[2]),
    _HOST_LINKS,
    """
    <address>%(address)s</address>
    <auto_numa_status>enable</auto_numa_status>
    <certificate>
        <organization>oVirt</organization>
        <subject>O=oVirt,CN=%(address)s</subject>
    </certificate>
    <cpu>
        <name>Intel Xeon</name>
        <speed>2000</speed>
        <topology>
            <cores>16</cores>
            <sockets>1</sockets>
            <threads>1</threads>
        </topology>
        <type>Secure Intel SandyBridge Family</type>
    </cpu>
    <device_passthrough>
        <enabled>false</enabled>
    </device_passthrough>
    <external_status>%(external_status)s</external_status>
    <hardware_information>
        <family></family>
        <manufacturer>Lab</manufacturer>
        <product_name>Lab</product_name>
        <serial_number>1</serial_number>
        <supported_rng_sources>
            <supported_rng_source>hwrng</supported_rng_source>
            <supported_rng_source>random</supported_rng_source>
        </supported_rng_sources>
        <uuid>%(id)s</uuid>
        <version>1</version>
    </hardware_information>
    @hosted_engine
    <iscsi>
        <initiator>iqn.1994-05.com.example:%(address)s</initiator>
    </iscsi>
    <kdump_status>disabled</kdump_status>
    <ksm>
        <enabled>false</enabled>
    </ksm>
    <libvirt_version>
        <build>0</build>
        <full_version>libvirt-9.5.0-1.el9</full_version>
        <major>9</major>
        <minor>5</minor>
        <revision>0</revision>
    </libvirt_version>
    <max_scheduling_memory>67945627648</max_scheduling_memory>
    <memory>68719476736</memory>
    <numa_supported>false</numa_supported>
    <os>
        <custom_kernel_cmdline></custom_kernel_cmdline>
        <description>Red Hat Enterprise Linux 9</description>
        <reported_kernel_cmdline>quiet</reported_kernel_cmdline>
        <type>RHEL</type>
        <version>
            <full_version>9 - 1</full_version>
            <major>9</major>
        </version>
    </os>
    <ovn_configured>false</ovn_configured>
    <port>54321</port>
    <power_management>
        <automatic_pm_enabled>true</automatic_pm_enabled>
        <enabled>false</enabled>
        <kdump_detection>true</kdump_detection>
        <pm_proxies/>
    </power_management>
    <protocol>stomp</protocol>
    <reinstallation_required>false</reinstallation_required>
    <se_linux>
        <mode>enforcing</mode>
    </se_linux>
    <spm>
        <priority>5</priority>
        <status>none</status>
    </spm>
    <ssh>
        <port>22</port>
    </ssh>
    <status>%(status)s</status>
    @status_detail
    <summary>
        <active>%(active)s</active>
        <migrating>%(migrating)s</migrating>
        <total>%(total)s</total>
    </summary>
    <transparent_hugepages>
        <enabled>true</enabled>
    </transparent_hugepages>
    <type>rhel</type>
    <update_available>false</update_available>
    <version>
        <build>5</build>
        <full_version>vdsm-4.50.5-1.el9</full_version>
        <major>4</major>
        <minor>50</minor>
        <revision>0</revision>
    </version>
    <vgpu_placement>consolidated</vgpu_placement>
    @cluster
""",
)

CLUSTER = _whole(
    "cluster",
    _CLUSTER_ACTIONS,
    _NAMES,
    _CLUSTER_LINKS,
    """
    <ballooning_enabled>true</ballooning_enabled>
    <bios_type>q35_ovmf</bios_type>
    <cpu>
        <architecture>x86_64</architecture>
        <type>Secure Intel SandyBridge Family</type>
    </cpu>
    @properties
    <error_handling>
        <on_error>migrate</on_error>
    </error_handling>
    <fencing_policy>
        <enabled>true</enabled>
        <skip_if_connectivity_broken>
            <enabled>false</enabled>
            <threshold>50</threshold>
        </skip_if_connectivity_broken>
        <skip_if_gluster_bricks_up>false</skip_if_gluster_bricks_up>
        <skip_if_gluster_quorum_not_met>false</skip_if_gluster_quorum_not_met>
        <skip_if_sd_active>
            <enabled>false</enabled>
        </skip_if_sd_active>
    </fencing_policy>
    <fips_mode>disabled</fips_mode>
    <firewall_type>firewalld</firewall_type>
    <gluster_service>false</gluster_service>
    <ha_reservation>false</ha_reservation>
    <ksm>
        <enabled>true</enabled>
        <merge_across_nodes>true</merge_across_nodes>
    </ksm>
    <log_max_memory_used_threshold>95</log_max_memory_used_threshold>
    <log_max_memory_used_threshold_type>percentage</log_max_memory_used_threshold_type>
    <memory_policy>
        <over_commit>
            <percent>100</percent>
        </over_commit>
        <transparent_hugepages>
            <enabled>true</enabled>
        </transparent_hugepages>
    </memory_policy>
    <migration>
        <auto_converge>inherit</auto_converge>
        <bandwidth>
            <assignment_method>auto</assignment_method>
        </bandwidth>
        <compressed>inherit</compressed>
        <encrypted>inherit</encrypted>
        <parallel_migrations_policy>disabled</parallel_migrations_policy>
        <policy id="%(migration_policy)s"/>
    </migration>
    <required_rng_sources>
        <required_rng_source>urandom</required_rng_source>
    </required_rng_sources>
    <switch_type>legacy</switch_type>
    <threads_as_cores>false</threads_as_cores>
    <trusted_service>%(trusted_service)s</trusted_service>
    <tunnel_migration>false</tunnel_migration>
    <upgrade_in_progress>false</upgrade_in_progress>
    <upgrade_percent_complete>0</upgrade_percent_complete>
    <version>
        <major>%(major)s</major>
        <minor>%(minor)s</minor>
    </version>
    <virt_service>true</virt_service>
    <vnc_encryption>false</vnc_encryption>
    @affinity_groups
    @data_center
    @mac_pool
    @management_network
    @scheduling_policy
""",
)

BARE_VM = _bare("vm", _VM_ACTIONS, _VM_LINKS)
BARE_HOST = _bare("host", _HOST_ACTIONS, _HOST_LINKS)

# Collections that the root of the API links to, `*` where they can be searched.
_API_LINKS = (
    "clusters* datacenters* events* hosts* networks* roles storagedomains* tags bookmarks icons "
    "templates* instancetypes* users* groups* domains vmpools* vms* disks* jobs "
    "storageconnections vnicprofiles diskprofiles cpuprofiles schedulingpolicyunits "
    "schedulingpolicies permissions macpools networkfilters operatingsystems "
    "externalhostproviders openstackimageproviders openstackvolumeproviders "
    "openstacknetworkproviders katelloerrata affinitylabels clusterlevels imagetransfers "
    "externalvmimports externaltemplateimports"
)


def _api() -> str:
    """Return the links of the root: to each collection, and to a search in it."""
    lines: list[str] = []
    for collection in _API_LINKS.split():
        name = collection.rstrip("*")
        lines.append(f'    <link href="{API}/{name}" rel="{name}"/>')
        if collection != name:
            # Events can be searched from an id on.
            start = ";from={event_id}" if name == "events" else ""
            address = f"{API}/{name}{start}?search={{query}}"
            lines.append(f'    <link href="{address}" rel="{name}/search"/>')
    return "\n".join(lines)


ROOT = Template(
    f"""
<api>
{_api()}
    <engine_backup/>
    <product_info>
        <instance_id>%(instance)s</instance_id>
        <version>
            <build>0</build>
            <full_version>4.5.8-1.el9</full_version>
            <major>4</major>
            <minor>5</minor>
            <revision>0</revision>
        </version>
    </product_info>
    <special_objects>
        <blank_template href="{API}/templates/{BLANK_TEMPLATE}" id="{BLANK_TEMPLATE}"/>
        <root_tag href="{API}/tags/{BLANK_TEMPLATE}" id="{BLANK_TEMPLATE}"/>
    </special_objects>
    @summary
    <time>%(time)s</time>
    @users
</api>
"""
)
