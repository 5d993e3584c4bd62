//! The local AWS as a program: it prints where it listens as one line of JSON, and stops by
//! itself.

use clap::Parser;
use local_aws::{
    CLASSIC_REGIONS, Clock, DEFAULT_ACCOUNT, Entry, Fault, LocalAws, Report, RoleOptions,
    SeedOptions, World, world_json,
};
use serde_json::json;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Builder as Runtime;

/// The part of AWS that image-usage-auditor uses, on loopback.
///
/// EC2's AMIs and image usage reports, STS, Organizations and S3 on one endpoint, filled with
/// reports generated from a seed, and the Lambda Runtime API. Prints one line of JSON once it listens: the
/// endpoint, the reports of each account in each Region, the folder of S3, and `function`: the
/// value of AWS_LAMBDA_RUNTIME_API for a function's process, and the URL that invokes it with the
/// event that is posted there. Scripts find more at ENDPOINT/_local-aws/ (world, reports, images,
/// resources, calls, faults, clock, functions).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Port of 127.0.0.1 to listen on; 0 uses a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// File to write the endpoint's URL to once it listens
    #[arg(long, value_name = "FILE")]
    endpoint_file: Option<PathBuf>,
    /// Seed of the reports
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Enabled Regions, comma-separated; `all` means the 17 that need no opt-in
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "us-east-1,eu-west-1,ap-southeast-2"
    )]
    regions: Vec<String>,
    /// Region that exists but is not enabled; can be repeated
    #[arg(long, value_name = "REGION", default_value = "ap-east-1")]
    disabled_region: Vec<String>,
    /// Accounts, comma-separated; the first is the default
    #[arg(long, value_delimiter = ',', default_value = DEFAULT_ACCOUNT)]
    accounts: Vec<String>,
    /// Number of reports of each account in each Region
    #[arg(long, default_value_t = 60)]
    reports: usize,
    /// Adds one AMI for each verdict to each account and Region, with 20 reports in all
    #[arg(long)]
    verdicts: bool,
    /// Creates one more report in each target, with this many entries
    #[arg(long, value_name = "NUMBER")]
    entries: Option<usize>,
    /// Creates no reports and no AMIs
    #[arg(long)]
    empty: bool,
    /// Role to create in every account
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// External ID that the role requires
    #[arg(long, value_name = "ID", requires = "role")]
    external_id: Option<String>,
    /// Puts the accounts into an organization
    #[arg(long)]
    organization: bool,
    /// Folder of S3; by default a temporary one, which is left behind if the program is killed
    #[arg(long, value_name = "DIR")]
    s3_root: Option<PathBuf>,
    /// Bucket to create; can be repeated
    #[arg(long, value_name = "NAME")]
    bucket: Vec<String>,
    /// Start time of the clock, in RFC 3339; by default the system's time
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// Fault, such as kind=denied,op=DescribeImageUsageReports,region=eu-west-1; can be repeated
    ///
    /// Fields, of which only `kind` is required: service (ec2, sts, organizations, s3), op,
    /// account, region, key (a part of an S3 key), report and image (IDs that the request names);
    /// nth=N or first=N (of the matching requests), page=first|middle|last|N, or p=0.5 with
    /// seed=N; after=true (only after the request took effect). Kinds: denied, auth-failure,
    /// throttle, token-bucket, 500, 503, conflict, precondition, error (with status, code,
    /// message), close, reset, cut, malformed, unknown-members, cdata, slow, latency (with ms),
    /// repeat-token, token-cycle (with length), expire-token, empty-page, empty-token,
    /// duplicate-report, bare-report, region-disabled, expire-credentials.
    #[arg(long, value_name = "FAULT", verbatim_doc_comment)]
    fault: Vec<Fault>,
    /// Throttles callers of EC2 by its token buckets
    #[arg(long)]
    token_buckets: bool,
    /// Stops after this many seconds
    #[arg(long, default_value_t = 3600)]
    max_seconds: u64,
}

/// The name of the function whose Runtime API is started with the program.
const FUNCTION: &str = "auditor";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let world = build_world(&arguments)?;
    let aws = start(&arguments, world)?;
    if let Some(path) = &arguments.endpoint_file {
        std::fs::write(path, aws.endpoint())?;
    }
    announce(&aws)?;
    std::thread::sleep(Duration::from_secs(arguments.max_seconds));
    Ok(())
}

fn build_world(arguments: &Arguments) -> Result<World, Box<dyn Error>> {
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
        // An enabled Region overrides the default of `--disabled-region`.
        if !arguments.regions.contains(region) {
            builder = builder.disabled_region(region);
        }
    }
    let world = builder.build();
    fill(&world, arguments);
    Ok(world)
}

/// Creates the roles, the organization and the reports.
fn fill(world: &World, arguments: &Arguments) {
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
            one_of_each_verdict: arguments.verdicts,
            ..SeedOptions::default()
        });
    }
    if let Some(entries) = arguments.entries {
        for account in &arguments.accounts {
            for region in world.enabled_regions(account) {
                let large = large_report(world, &format!("amiur-{region}"), entries);
                world.put_report(account, &region, large);
            }
        }
    }
}

fn large_report(world: &World, id: &str, entries: usize) -> Report {
    let now = world.clock().now();
    let entry = |number: usize| Entry {
        resource_type: Some("ec2:Instance".to_owned()),
        account_id: Some(format!("{number:012}")),
        usage_count: Some(1),
    };
    Report {
        report_id: Some(id.to_owned()),
        image_id: Some("ami-0123456789abcdef0".to_owned()),
        state: Some("available".to_owned()),
        creation_time: Some(now - time::Duration::DAY),
        expiration_time: Some(now + time::Duration::days(29)),
        entries: (0..entries).map(entry).collect(),
        ..Report::default()
    }
}

fn start(arguments: &Arguments, world: World) -> Result<LocalAws, Box<dyn Error>> {
    let mut builder = LocalAws::builder(world).port(arguments.port);
    if let Some(root) = &arguments.s3_root {
        builder = builder.s3_root(root);
    }
    let aws = Runtime::new_current_thread()
        .build()?
        .block_on(builder.start())?;
    for bucket in &arguments.bucket {
        aws.create_bucket(bucket)?;
    }
    for fault in &arguments.fault {
        aws.faults().add(fault.clone());
    }
    if arguments.token_buckets {
        aws.enable_token_buckets();
    }
    Ok(aws)
}

/// Prints where the local AWS listens, and what it holds.
fn announce(aws: &LocalAws) -> Result<(), Box<dyn Error>> {
    let function = aws.start_function(FUNCTION)?;
    let endpoint = aws.endpoint();
    let mut line = world_json(aws.world());
    line["endpoint"] = endpoint.clone().into();
    line["s3_root"] = aws.archive_root().to_string_lossy().into();
    line["function"] = json!({
        "runtime_api": function.address().to_string(),
        "invocations": format!("{endpoint}/_local-aws/functions/{FUNCTION}/invocations"),
    });
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()?;
    Ok(())
}
