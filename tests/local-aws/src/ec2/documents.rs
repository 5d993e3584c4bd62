//! Writes reports and entries as EC2 does.

use super::listing::Row;
use crate::clock::timestamp;
use crate::world::{Report, ResourceType, ResourceTypeOption, Tag};
use crate::xml::Xml;
use time::OffsetDateTime;

pub(super) fn write_report(xml: &mut Xml, report: &Report, now: OffsetDateTime) {
    let (state, state_reason) = report.state_at(now);
    xml.open("item");
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
    xml.close("item");
}

pub(super) fn write_entry(xml: &mut Xml, row: &Row<'_>) {
    let report = row.report;
    xml.open("item");
    if let Some(entry) = row.entry {
        xml.optional("resourceType", entry.resource_type.as_deref());
        xml.optional("reportId", report.report_id.as_deref());
        let count = entry.usage_count.map(|count| count.to_string());
        xml.optional("usageCount", count.as_deref());
        xml.optional("accountId", entry.account_id.as_deref());
        xml.optional("imageId", report.image_id.as_deref());
        let created = report.creation_time.map(timestamp);
        xml.optional("reportCreationTime", created.as_deref());
    }
    xml.close("item");
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
