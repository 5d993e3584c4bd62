//! The part of AWS that image-usage-auditor uses, on loopback.
//!
//! One HTTP/1.1 server on 127.0.0.1 is the endpoint of EC2, STS, Organizations and S3. The
//! service, account and Region of a request come from the credential scope of its signature
//! (`Credential=AKID/20261122/eu-west-1/ec2/aws4_request`); a request without one is for S3.
//! **Signatures are not verified.** A [`World`] holds the state, [`Faults`] decide what goes
//! wrong, and a log records every [`Call`]. A [`RuntimeApi`] is Lambda's side of a function.
//! Everything that looks random comes from seeds.
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
//! `DescribeImageUsageReportEntries`, `CreateImageUsageReport`, `DeleteImageUsageReport`,
//! `DescribeImages`, `DescribeImageReferences` and `DescribeRegions`, with the field names of
//! EC2's service model; filters with their wildcards and limits; limits of ID lists; `MaxResults`;
//! page tokens that are opaque, bound to their query, account and Region, and expire; `DryRun`;
//! reports that change from `pending` to `available` or `error`, expire and are deleted; quotas of
//! pending reports; client tokens; tags; disabled Regions; token buckets (on demand). Pages are in
//! the order of creation and continue from a position, not from a count: a deletion between two
//! pages neither skips nor repeats a row.
//!
//! AMIs ([`World::put_image`]) are private, shared, public, deprecated, disabled or deregistered;
//! a launch is shown with EC2's lag, and to the owner only. References are those of the
//! [`Resource`]s in the caller's account and Region. A report that is created about an AMI of the
//! world has the usage of [`World::set_usage`] as entries; the resources do not count for it.
//!
//! **STS**: `GetCallerIdentity`, and `AssumeRole` with external IDs, denial and expiry. An access
//! key that contains the ID of an account of the world belongs to that account, every other one to
//! the first account. **Organizations**: `ListAccounts`, for the first account. **S3**: the crates
//! `s3s` and `s3s-fs` over a folder. **Lambda**: the Runtime API.
//!
//! # What is not modelled
//!
//! - IAM: every caller has every permission, except what faults and roles deny. Requests without a
//!   signature, or with any signature, are accepted.
//! - EC2 does not document the following, so this is a guess: the code
//!   `InvalidImageUsageReportId.NotFound`; the code `ImageUsageReportLimitExceeded` of the quotas;
//!   the length of a page without `MaxResults` (1,000); the lifetime of page tokens (an hour); that
//!   image IDs and report IDs in one request must both match, also with `MaxResults`; that unknown
//!   report IDs are refused ([`World::leave_out_unknown_reports`] is the alternative); the order of
//!   entries ([`World::interleave_entries`] is another one); that a report which is not `available`
//!   has no entries and is still known; that a disabled AMI which a request names is omitted without
//!   `IncludeDisabled`; that references can be asked about any well-formed ID; the codes of invalid
//!   requests for references.
//! - A report can be created about any well-formed ID, and a listing for an image without reports
//!   is empty. Images can be filtered by the commonest filters only; others are refused. All have
//!   the same architecture and the like. Nothing checks that an AMI can be launched.
//! - A page of EC2 may be shorter than `MaxResults` at any time; here only faults do that.
//!   EC2's listings are eventually consistent; here every response is up to date.
//! - STS has no regional endpoints with differing tokens, no session policies and no chaining
//!   limits; every caller may assume a role if it knows the external ID.
//! - S3 has no versions (and so no version IDs), no bucket policies or accounts, no presigned
//!   URLs, no object lock, and no 409 of its own (a fault returns it). `s3s-fs` also differs from
//!   S3 in this: an object with a wrong digest is refused, but stored; the parts of an upload, and
//!   the ETags and checksums given to complete it, are not compared, and a failed completion ends
//!   the upload; an object of an upload has no checksums; a stored checksum is in every response;
//!   a key cannot be both an object and a prefix of others; the parts of a key between slashes
//!   have at most 255 bytes, bucket and key together at most about 165 characters; `ListParts`
//!   has no ETags; a part that is missing on completion is an internal error.
//! - `s3s-fs` stores side files in the root, beside the buckets' folders, never in them:
//!   `.bucket-*.object-*.metadata.json` (headers), `.bucket-*.object-*.internal.json` (ETag and
//!   checksums; they stay after a deletion, and a file that is changed on disk keeps its old
//!   ETag), `.upload-*.json` and `.upload_id-*.part-*` (unfinished uploads), `.tmp.*.internal.part`
//!   (unfinished writes). Objects are plain files in the folder of their bucket.
//! - Lambda: no extensions, no response streaming, no retries, no logs. The Runtime API does not
//!   start or stop the function's process.

mod answer;
mod api_error;
mod caller;
mod calls;
mod clock;
mod control;
mod dispatch;
mod ec2;
mod expected_findings;
mod faults;
mod filters;
mod functions;
mod images;
mod listener;
mod organizations;
mod query;
mod random;
mod resources;
mod runtime_api;
mod s3;
mod seed;
mod seed_images;
mod server;
mod sts;
mod tokens;
mod usage;
mod wire;
mod world;
mod xml;

pub use calls::Call;
pub use clock::{Clock, timestamp};
pub use control::world_json;
pub use expected_findings::{FindingPolicy, count_findings};
pub use faults::{Fault, FaultKind, Faults, InvalidFault, Page, Service, When};
pub use images::{BlockDevice, Image};
pub use random::Random;
pub use resources::Resource;
pub use runtime_api::{Outcome, OutcomeKind, RuntimeApi};
pub use seed::{Mix, SeedOptions};
pub use server::{LocalAws, LocalAwsBuilder};
pub use world::{
    AccountStates, CLASSIC_REGIONS, CreationOutcome, DEFAULT_ACCOUNT, Entry, Report, ResourceType,
    ResourceTypeOption, RoleOptions, Tag, Transition, World, WorldBuilder,
};
