//! The part of AWS that image-usage-auditor talks to, on loopback.
//!
//! One HTTP/1.1 server on 127.0.0.1 answers EC2, STS, Organizations and S3 on one endpoint. Which
//! service, account and Region a request is for is read from the credential scope of its
//! signature (`Credential=AKID/20261122/eu-west-1/ec2/aws4_request`); a request without one is
//! for S3. **Signatures are not verified.** A [`World`] holds what it answers from, [`Faults`]
//! say what goes wrong, and a log of [`Call`]s tells what was asked. Everything that looks random
//! comes from seeds.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use local_aws::{Fault, FaultKind, LocalAws, Report, SeedOptions, World};
//!
//! let world = World::builder().regions(["us-east-1", "eu-west-1"]).build();
//! world.seed(&SeedOptions::default());
//! world.put_report("111122223333", "us-east-1", Report::default());
//! let aws = LocalAws::start(world).await?;
//! aws.create_bucket("archive")?;
//! aws.faults().add(Fault::new(FaultKind::Denied).in_region("eu-west-1"));
//! println!("{}", aws.endpoint());
//! # Ok(())
//! # }
//! ```
//!
//! # What is modelled
//!
//! **EC2** (Query protocol, 2016-11-15): `DescribeImageUsageReports`,
//! `DescribeImageUsageReportEntries`, `CreateImageUsageReport`, `DeleteImageUsageReport` and
//! `DescribeRegions`, with the member names of EC2's service model; filters with their wildcards
//! and limits; ID lists of at most 200; `MaxResults`; page tokens that are opaque, bound to their
//! query, account and Region, and expire; `DryRun`; reports that go from `pending` to `available`
//! or `error`, expire and vanish; quotas of pending reports; client tokens; tags; disabled
//! Regions; token buckets (on demand). Pages follow the order of creation and go on from a place,
//! not from a count: a deletion in between neither skips nor repeats a report.
//!
//! **STS**: `GetCallerIdentity`, and `AssumeRole` with external IDs, denial and expiry. An access
//! key that contains the ID of an account of the world belongs to it, every other one to the first
//! account. **Organizations**: `ListAccounts`, from the first account. **S3**: the crates `s3s`
//! and `s3s-fs` over a folder.
//!
//! # What is not
//!
//! - IAM: every caller may do everything, but for what faults and roles deny. Requests without a
//!   signature, or with any signature, are accepted.
//! - EC2 does not document some things, and what is here is a guess: the code
//!   `InvalidImageUsageReportId.NotFound`, the code `ImageUsageReportLimitExceeded` of the quotas,
//!   the length of a page without `MaxResults` (1,000), the lifetime of page tokens (an hour), and
//!   that image IDs and report IDs given together both have to match, also with `MaxResults`. Images aren't modelled: any
//!   well-formed ID has a report made, and asking for one without reports lists nothing. That the
//!   IDs of reports which are not there are refused is a guess too
//!   ([`World::leave_out_unknown_reports`] is the other one), and so is the order of entries
//!   ([`World::interleave_entries`] mixes them), and that a report which is not `available` has none
//!   and is still known.
//! - A page of EC2 may be shorter than `MaxResults` at any time; here only faults make it so.
//!   EC2's lists are eventually consistent; here every answer is up to date.
//! - STS has no regional endpoints with differing tokens, no session policies and no chaining
//!   limits; everybody may assume a role who knows its external ID.
//! - S3 has no versions (and so no version IDs), no bucket policies or accounts, no presigned
//!   URLs, no object lock, and no 409 of its own (a fault gives it). What `s3s-fs` does otherwise than S3:
//!   an object whose digest doesn't fit is refused, but stays; parts of an upload and the ETags
//!   and checksums given to complete it are not compared, and a completion that fails ends the
//!   upload; an object of an upload has no checksums; a stored checksum comes with every answer;
//!   a key can't be both an object and a prefix of others; the parts of a key between slashes
//!   have at most 255 bytes, bucket and key together at most about 165 characters; `ListParts`
//!   has no ETags; a part that is missing on completion is an internal error.
//! - `s3s-fs` keeps side files in the root, beside the buckets' folders, never in them:
//!   `.bucket-*.object-*.metadata.json` (headers), `.bucket-*.object-*.internal.json` (ETag and
//!   checksums; they stay after a deletion, and a file changed on disk keeps its old ETag),
//!   `.upload-*.json` and `.upload_id-*.part-*` (unfinished uploads), `.tmp.*.internal.part`
//!   (unfinished writes). Objects are plain files in their bucket's folder.

mod answer;
mod calls;
mod clock;
mod ec2;
mod faults;
mod filters;
mod introspection;
mod organizations;
mod query;
mod random;
mod s3;
mod seed;
mod server;
mod sts;
mod tokens;
mod wire;
mod world;
mod xml;

pub use calls::Call;
pub use clock::{Clock, timestamp};
pub use faults::{Fault, FaultKind, Faults, InvalidFault, Page, Service, When};
pub use introspection::world_json;
pub use seed::{FindingPolicy, Mix, SeedOptions, count_findings};
pub use server::{LocalAws, LocalAwsBuilder};
pub use world::{
    CLASSIC_REGIONS, CreationOutcome, DEFAULT_ACCOUNT, Entry, Report, ResourceType,
    ResourceTypeOption, RoleOptions, Tag, Transition, World, WorldBuilder,
};
