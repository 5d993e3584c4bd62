//! image-usage-auditor: an AWS Lambda function that audits and archives EC2 image usage reports.
//!
//! What users need is in the README; this page is for who reads or changes the code. It is the one place
//! where the architecture is written down.
//!
//! # A run
//!
//! A run reads like a sentence, and the modules are its words: **plan** the targets → **collect** each
//! target's reports page by page, and judge them by the rules of **findings** → **compare** them with what
//! is **known** from the run before → fetch the **entries** that nobody has archived yet → **archive** the
//! lines → **publish** the **snapshot** → answer with the summary.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`lambda`] | the edge to Lambda: invocations, errors, the log |
//! | [`settings`] | environment → [`settings::Settings`] |
//! | [`request`] | payload → [`request::Request`] |
//! | [`run`] | one run: the order of things, looks and second looks, the deadline |
//! | `plan` | accounts × Regions → targets |
//! | `collect` | one target: its listing, its entries, its lines |
//! | `pages` | where a listing of EC2 stands: tokens, restarts |
//! | `listing` | the reports of a target, until their lines can be written |
//! | [`index`] | what is known of each report, in bounded memory |
//! | `known`, `compare` | the last snapshot and its lines, and what is different from them |
//! | `entries` | the entries of reports: fetched once, grouped, archived |
//! | [`archive`] | lines → gzip → one put or a multipart upload |
//! | `read_back` | objects that another try of the run has written |
//! | [`publish`] | the commit of a run, and `latest.json` |
//! | [`preflight`] | what EC2 would permit |
//! | [`verify`] | what the binary `verify` checks of an archive |
//! | [`metrics`] | the line in CloudWatch's embedded metric format |
//! | [`target`], [`report`], [`findings`], [`snapshot`], [`changes`], [`listed`], [`keys`], [`timestamp`] | the words, the rules, the documents; pure |
//! | [`aws`] | the only code that names a type of the SDK |
//!
//! The pure modules know no SDK, no tokio, no environment and no clock: the run reads the wall clock once,
//! and hands that moment to the rules. `aws` knows no rules, and the rules know no S3. There is no trait
//! that only a mock would need: the tests run the real SDK clients against a local AWS, which speaks the
//! wire protocols (the package `local-aws`, in `tests/`).
//!
//! # What "complete" rests on
//!
//! - **Our own page loop.** The SDK's paginator takes a repeated token for the end of a listing. Here it is
//!   an error of the target, an empty page is not the end, an empty token is, and a token that has run out
//!   restarts the listing once.
//! - **Whole answers.** The SDK's XML decoder takes a document that is cut short, or ill-formed in the
//!   middle, for one that ends there. Every answer is checked to be a whole document before it counts; a
//!   page of reports is read by a decoder of our own, which does both in one pass.
//! - **Every `Option` is decided** where SDK types become ours, in [`aws`]; what is missing stays missing.
//! - **A target is one of four things**: complete, incomplete with what came and why it broke off, failed
//!   with why, or skipped, if EC2 says that its Region isn't enabled (`AuthFailure` alone doesn't say that,
//!   so the opt-in status is asked for). Nothing turns a target that could not be looked at into a clean one.
//! - **Entries count only when whole.** A report's entries are noted as archived once all their pages are
//!   read and the object that holds them is in the archive. Before a report without entries is archived as
//!   "no usage observed", EC2 has to list it as available once more, for it may answer in the same way for
//!   a report that was deleted a moment ago.
//! - **The snapshot comes last**, and only where none is. Its presence says that every object it names is
//!   there.
//!
//! # What a run takes over from the one before
//!
//! Entries never change once a report is available, so that each report has its entries fetched once. Where
//! they are stands on its line, and the next run takes that over from the lines that the last unscoped
//! snapshot names. So the archive is the only memory, and it is checked before it is believed: an object
//! whose SHA-256 isn't the ledger's counts as lost, and what it told of is fetched again. The same lines
//! tell what has changed. A target that could not be read to its end carries the objects that hold what is
//! known of it (`earlier_objects`) through the ledgers, until it is read again: nothing of it is resolved,
//! gone, or fetched twice in between.
//!
//! # When the same run is tried twice
//!
//! Events come at least once, and a try can die at any point. Tries of one event have one run ID and write
//! under the same keys. Every object is written where none is; if one is there, then by another try. With
//! the same bytes, it is as good. In a bucket with versions, ours becomes another version, and each try's
//! snapshot names its own. In a bucket without versions the one that is there stays, for a snapshot may
//! name it already: it is read back, and this try tells of it instead of its own reading. (A multipart
//! upload of another try doesn't tell if it is whole, for its metadata is written before its end is known;
//! it counts as incomplete.) The same holds for the entries: of another try's object those reports count as
//! archived that it holds. Of two snapshots the first one stays, and both tries answer with it.
//!
//! # Which layer tries again
//!
//! 1. **The SDK**, a call: throttling, 5xx, time-outs, connections, and answers that broke off; up to 15
//!    times with a growing, random wait. Each target has retry tokens of its own, so that a throttled
//!    account slows no other.
//! 2. **The page loop**, a listing: an expired token restarts it once, a refused page size restarts it
//!    without one.
//! 3. **The run**, a target: one that failed with something that may pass is looked at once more when the
//!    others are done, with new credentials where they come from a role. What it has read is kept if that
//!    is little, and the listing's second start recognises it; a large target goes on at once instead.
//! 4. **The entries**, some reports: a call that fails for 200 of them is made again for each half, so that
//!    a report that EC2 can't give costs only itself. What is not fetched is fetched by the next run.
//! 5. **Lambda**, a run: it sends the event again after an error, and the run fails only if nothing was
//!    archived, or if the archive itself failed.
//!
//! # The deadline
//!
//! Reading stops in time to archive what has been read. The margin follows from what is left to write: the
//! unsent bytes of all targets at work and the snapshot at a pessimistic rate, and a second for each call
//! that has to follow another; at most a quarter of the run's time. A target's object that is not written
//! by the time the snapshot has to be costs only that target, and a snapshot that is not written before
//! the end is an error, and not silence. Listing comes before entries: a target's entries have only its
//! share of the time that is left, by the number of targets that are still to come, and the reports that
//! expire first come first.
//!
//! # Memory
//!
//! A report's line tells where its entries are, which is known only when every page has been read. Until
//! then a report waits in a spool, compressed; what is to be known of it by its ID stands in an index. Both
//! are held in memory for a small target, and in unnamed temporary files of about 130 and 70 bytes a report
//! for a large one. With *C* = `AUDITOR_MAX_CONCURRENT_TARGETS`, *P* = `AUDITOR_PAGE_SIZE`, *R* the bytes of
//! a report in EC2's XML (about 700; up to 40,000 with 50 tags of full length), and *T* the targets of the
//! run, a run needs at most about
//!
//! > 15 MB + *C* × (8 MiB part + 4 MB spool, index and order of expiry + 1 MB findings + 4 × *P* × *R*) + 8 × 3 MB waiting + *T* × 2 KB
//!
//! which is 180 MB with the defaults and 8 huge targets at a time, and fits a function of 256 MB. The part
//! is the smallest that S3 takes (a growing vector may have 8 MiB for its 5).
//!
//! # Where time goes
//!
//! A small function has a part of one core, so that processor time is what a run takes; most of it goes
//! into gzip, then into XML and JSON. What is spent on each report is kept low: the page is read in one
//! pass, the report's JSON is written once and copied from then on, the spool takes LZ4, and the index goes
//! to its file many notes at a time. What can wait side by side does: the last snapshot is read while EC2
//! lists, and a page is noted while the next one is on its way. Each target is a task, so that a function
//! with memory for several cores uses them; with one, tokio's current-thread runtime spares the threads.
//!
//! # Start-up and dependencies
//!
//! One TLS stack (rustls with ring; aws-lc would cost tens of milliseconds of CPU at start) and one HTTP
//! client for all SDK clients, made before the first invocation, where Lambda gives full CPU. It trusts
//! Amazon's five roots first, since reading the system's would be most of the start. Connections are not
//! opened ahead: that would gain a run a few milliseconds, which nobody waits for. `BehaviorVersion` is
//! pinned, so that an update of the SDK changes no retry or time-out by itself. In a release build, all
//! that is logged below INFO is compiled out, of the SDK too.
//!
//! `aws-sdk-ec2` is nearly all of the build. Select packages with `--workspace --all-targets` as the Makefile
//! does: another selection resolves other features and compiles it again.

pub mod archive;
pub mod audit;
pub mod aws;
pub mod lambda;
pub mod request;
pub mod settings;
mod staging;
