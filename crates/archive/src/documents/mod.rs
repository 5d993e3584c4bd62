//! The documents of the archive: report lines, entry lines, image lines, the ledger of targets and the snapshot;
//! those that the phases of a run hand over; and the news that follow from a snapshot.
//!
//! Fields are written in the order in which they are declared, and lists are sorted: the same facts yield the
//! same bytes.

mod add_fields;
mod changes;
mod counts;
mod entry_line;
mod expirations;
mod image_line;
mod ledger;
mod news;
mod outcome;
mod page_contents;
mod plan;
mod report_line;
mod snapshot;

pub use changes::{
    AppearedReport, ChangeTally, ChangedReport, ChangedVerdict, Changes, FindingChanges,
    GoneReport, ReportChanges, Subject,
};
pub use counts::{
    Counts, EntriesCounts, FindingCounts, ImageCounts, ReportCounts, RunStatus, TargetCounts,
};
pub use entry_line::EntryLine;
pub(crate) use expirations::{DAYS, Expirations, OfDay};
pub use image_line::{
    ConsumerLine, ImageFields, ImageLine, ImageReading, MAX_REFERENCES, ObservedReportLine,
    Reference, References, SourceLine,
};
pub use ledger::{ArchivedObject, ImagesLedger, LedgerLine, Renewals, TargetError, TargetStatus};
pub use news::{ChangeCounts, MAX_ATTENTION, News};
pub use outcome::{Tally, TargetOutcome, set_renewals};
pub use page_contents::PageContents;
pub(crate) use page_contents::{
    ImageName, LargeConsumer, MAX_KEPT, QuietImage, UnclearImage, UncoveredImage, UsedImage,
};
pub use plan::{EarlierObjects, OutcomeLine, Plan, TargetLine};
pub use report_line::{ArchivedLine, ReportFields, ReportLine};
pub use snapshot::{
    AUDITOR_NAME, AUDITOR_VERSION, Baseline, Generator, PreviousSnapshot, ReportFilter, RunFacts,
    SCHEMA_VERSION, Scope, Snapshot,
};
