//! The local AWS as a program: starts, prints where it listens as one JSON line, and stops by
//! itself.

use clap::Parser;
use local_aws::{
    CLASSIC_REGIONS, Clock, DEFAULT_ACCOUNT, Fault, LocalAws, RoleOptions, SeedOptions, World,
    world_json,
};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Builder as Runtime;

/// The part of AWS that image-usage-auditor talks to, on loopback.
///
/// EC2's image usage reports, STS, Organizations and S3 on one endpoint, filled with reports made
/// from a seed. Prints one line of JSON once it listens: the endpoint, what each account holds in
/// each Region, and the folder of S3. Scripts find more at ENDPOINT/_local-aws/ (world, reports,
/// calls, faults, clock).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Port of 127.0.0.1 to listen on; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// File to write the endpoint's URL to once it listens
    #[arg(long, value_name = "FILE")]
    endpoint_file: Option<PathBuf>,
    /// Seed of the reports
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Enabled Regions, comma-separated; `all` stands for the 17 that need no opting in
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "us-east-1,eu-west-1,ap-southeast-2"
    )]
    regions: Vec<String>,
    /// Region that exists but is not enabled; may be repeated
    #[arg(long, value_name = "REGION", default_value = "ap-east-1")]
    disabled_region: Vec<String>,
    /// Accounts, comma-separated; the first is the default
    #[arg(long, value_delimiter = ',', default_value = DEFAULT_ACCOUNT)]
    accounts: Vec<String>,
    /// Reports of each account in each Region
    #[arg(long, default_value_t = 60)]
    reports: usize,
    /// Holds no reports at all
    #[arg(long)]
    empty: bool,
    /// Role to put into every account
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// External ID that the role demands
    #[arg(long, value_name = "ID", requires = "role")]
    external_id: Option<String>,
    /// Makes the accounts an organization
    #[arg(long)]
    organization: bool,
    /// Folder of S3; if not given a temporary one, which stays behind if the program is killed
    #[arg(long, value_name = "DIR")]
    s3_root: Option<PathBuf>,
    /// Bucket to make; may be repeated
    #[arg(long, value_name = "NAME")]
    bucket: Vec<String>,
    /// Time that the clock starts at, in RFC 3339; the system's if not given
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// Fault, such as kind=denied,op=DescribeImageUsageReports,region=eu-west-1; may be repeated
    ///
    /// Members, of which only `kind` is needed: service (ec2, sts, organizations, s3), op,
    /// account, region, key (a part of an S3 key); nth=N or first=N (of the matching requests),
    /// page=first|middle|last|N, or p=0.5 with seed=N; after=true (only after the request took
    /// effect). Kinds: denied, auth-failure, throttle, token-bucket, 500, 503, conflict,
    /// precondition, error (with status, code, message), close, reset, cut, malformed,
    /// unknown-members, cdata, slow, latency (with ms), repeat-token, expire-token, empty-page,
    /// empty-token, duplicate-report, bare-report, region-disabled, expire-credentials.
    #[arg(long, value_name = "FAULT", verbatim_doc_comment)]
    fault: Vec<Fault>,
    /// Throttles EC2's callers by its token buckets
    #[arg(long)]
    token_buckets: bool,
    /// Stops after so many seconds
    #[arg(long, default_value_t = 3600)]
    max_seconds: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let clock = match &arguments.now {
        Some(text) => Clock::system_starting_at(OffsetDateTime::parse(text, &Rfc3339)?),
        None => Clock::system(),
    };
    let regions = match arguments.regions.iter().any(|region| region == "all") {
        true => CLASSIC_REGIONS.map(str::to_owned).to_vec(),
        false => arguments.regions.clone(),
    };
    let mut builder = World::builder()
        .clock(clock)
        .regions(regions)
        .seed(arguments.seed);
    for account in &arguments.accounts {
        builder = builder.account(account);
    }
    for region in &arguments.disabled_region {
        // The default gives way to a Region that was asked for.
        if !arguments.regions.contains(region) {
            builder = builder.disabled_region(region);
        }
    }
    let world = builder.build();
    for account in &arguments.accounts {
        if let Some(name) = &arguments.role {
            let role = RoleOptions {
                name: name.clone(),
                external_id: arguments.external_id.clone(),
                ..RoleOptions::default()
            };
            world.role(account, role);
        }
        if arguments.organization {
            world.organization_account(account, "ACTIVE");
        }
    }
    if !arguments.empty {
        world.seed(&SeedOptions {
            seed: arguments.seed,
            reports_per_region: arguments.reports,
            ..SeedOptions::default()
        });
    }

    let mut aws = LocalAws::builder(world.clone()).port(arguments.port);
    if let Some(root) = arguments.s3_root {
        aws = aws.s3_root(root);
    }
    let aws = Runtime::new_current_thread()
        .build()?
        .block_on(aws.start())?;
    for bucket in &arguments.bucket {
        aws.create_bucket(bucket)?;
    }
    arguments
        .fault
        .into_iter()
        .for_each(|fault| aws.faults().add(fault));
    if arguments.token_buckets {
        aws.enable_token_buckets();
    }
    if let Some(path) = arguments.endpoint_file {
        std::fs::write(path, aws.endpoint())?;
    }
    let mut line = world_json(&world);
    line["endpoint"] = aws.endpoint().into();
    line["s3_root"] = aws.archive_root().to_string_lossy().into();
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()?;

    std::thread::sleep(Duration::from_secs(arguments.max_seconds));
    Ok(())
}
