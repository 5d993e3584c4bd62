//! Writes the rows of listings as EC2 does.

use crate::clock::timestamp;
use crate::images::{BlockDevice, StoredImage};
use crate::world::{Entry, Report, ResourceType, ResourceTypeOption, Tag};
use crate::xml::Xml;
use time::OffsetDateTime;

/// The elements that every AMI of the local AWS has alike; filters know some of them too.
pub(super) const SAME_FOR_ALL_IMAGES: [(&str, &str); 10] = [
    ("architecture", "x86_64"),
    ("imageType", "machine"),
    ("platformDetails", "Linux/UNIX"),
    ("usageOperation", "RunInstances"),
    ("rootDeviceType", "ebs"),
    ("virtualizationType", "hvm"),
    ("hypervisor", "xen"),
    ("enaSupport", "true"),
    ("bootMode", "uefi-preferred"),
    ("imdsSupport", "v2.0"),
];

pub(super) fn write_report(xml: &mut Xml, report: &Report, now: OffsetDateTime) {
    let (state, state_reason) = report.state_at(now);
    xml.optional("imageId", report.image_id.as_deref());
    xml.optional("reportId", report.report_id.as_deref());
    write_set(
        xml,
        "resourceTypeSet",
        &report.resource_types,
        write_resource_type,
    );
    write_set(xml, "accountIdSet", &report.account_ids, |xml, id| {
        xml.leaf("item", id);
    });
    xml.optional("state", state);
    xml.optional("stateReason", state_reason);
    let times = [
        ("creationTime", report.creation_time),
        ("expirationTime", report.expiration_time),
    ];
    for (name, time) in times {
        xml.optional(name, time.map(timestamp).as_deref());
    }
    write_set(xml, "tagSet", &report.tags, write_tag);
}

pub(super) fn write_entry(xml: &mut Xml, report: &Report, entry: &Entry) {
    xml.optional("resourceType", entry.resource_type.as_deref());
    xml.optional("reportId", report.report_id.as_deref());
    let count = entry.usage_count.map(|count| count.to_string());
    xml.optional("usageCount", count.as_deref());
    xml.optional("accountId", entry.account_id.as_deref());
    xml.optional("imageId", report.image_id.as_deref());
    let created = report.creation_time.map(timestamp);
    xml.optional("reportCreationTime", created.as_deref());
}

/// Writes an AMI as `reader` sees it: only the owner sees the last launch and the tags.
pub(super) fn write_image(xml: &mut Xml, stored: &StoredImage, reader: &str, now: OffsetDateTime) {
    let (image, owner) = (&stored.image, &stored.owner);
    let reads_own = owner == reader;
    let name = image.name.as_deref();
    xml.leaf("imageId", &image.image_id);
    let location = format!("{owner}/{}", name.unwrap_or(&image.image_id));
    xml.leaf("imageLocation", &location);
    xml.optional("imageState", image.state.as_deref());
    xml.leaf("imageOwnerId", owner);
    xml.optional(
        "creationDate",
        image.creation_time.map(timestamp).as_deref(),
    );
    xml.leaf("isPublic", bool_text(image.public));
    for (name, value) in SAME_FOR_ALL_IMAGES {
        xml.leaf(name, value);
    }
    xml.optional("name", name);
    xml.optional("description", image.description.as_deref());
    let volumes = &image.block_devices;
    write_set(xml, "blockDeviceMapping", volumes, write_block_device);
    if let Some(volume) = volumes.first() {
        xml.leaf("rootDeviceName", &volume.device_name);
    }
    let deprecated = image.deprecation_time.map(timestamp);
    xml.optional("deprecationTime", deprecated.as_deref());
    let protection = image.deregistration_protection.as_deref();
    xml.optional("deregistrationProtection", protection);
    xml.optional("sourceImageId", image.source_image_id.as_deref());
    xml.optional("sourceImageRegion", image.source_image_region.as_deref());
    if reads_own {
        let launched = stored.last_launched_time(now).map(whole_seconds);
        xml.optional("lastLaunchedTime", launched.as_deref());
        write_set(xml, "tagSet", &image.tags, write_tag);
    }
}

fn write_block_device(xml: &mut Xml, volume: &BlockDevice) {
    xml.open("item");
    xml.leaf("deviceName", &volume.device_name);
    xml.open("ebs");
    xml.leaf("snapshotId", &volume.snapshot_id);
    xml.leaf("volumeSize", &volume.size_gib.to_string());
    xml.leaf("volumeType", "gp3");
    xml.leaf("deleteOnTermination", "true");
    xml.leaf("encrypted", "false");
    xml.close("ebs");
    xml.close("item");
}

pub(super) fn write_reference(xml: &mut Xml, image_id: &str, resource_type: &str, arn: &str) {
    xml.leaf("imageId", image_id);
    xml.leaf("resourceType", resource_type);
    xml.leaf("arn", arn);
}

/// Formats a time as EC2 does that of a launch: `2026-10-25T13:27:12Z`.
fn whole_seconds(time: OffsetDateTime) -> String {
    let mut text = timestamp(time);
    text.truncate("2026-10-25T13:27:12".len());
    text + "Z"
}

pub(super) fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn write_resource_type(xml: &mut Xml, resource_type: &ResourceType) {
    xml.open("item");
    xml.optional("resourceType", resource_type.resource_type.as_deref());
    write_set(
        xml,
        "resourceTypeOptionSet",
        &resource_type.options,
        write_option,
    );
    xml.close("item");
}

fn write_option(xml: &mut Xml, option: &ResourceTypeOption) {
    xml.open("item");
    xml.optional("optionName", option.name.as_deref());
    write_set(xml, "optionValueSet", &option.values, |xml, value| {
        xml.leaf("item", value);
    });
    xml.close("item");
}

fn write_tag(xml: &mut Xml, tag: &Tag) {
    xml.open("item");
    xml.optional("key", tag.key.as_deref());
    xml.optional("value", tag.value.as_deref());
    xml.close("item");
}

/// Writes a list. An empty list is omitted, as a field that EC2 does not send.
fn write_set<T>(xml: &mut Xml, name: &str, values: &[T], write: impl Fn(&mut Xml, &T)) {
    if values.is_empty() {
        return;
    }
    xml.open(name);
    for value in values {
        write(xml, value);
    }
    xml.close(name);
}
