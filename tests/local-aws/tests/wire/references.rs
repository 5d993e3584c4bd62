//! `DescribeImageReferences`.

use super::{ACCOUNT, Client, REGION, Received, a_world, client, code_of, started};
use local_aws::{Fault, FaultKind, LocalAws, Resource, World};

const A: &str = "ami-0000000000000000a";
const B: &str = "ami-0000000000000000b";

fn describe(client: &Client<'_>, rest: &str) -> Received {
    client.ec2(&format!(
        "Action=DescribeImageReferences&Version=2016-11-15{rest}"
    ))
}

/// Returns the ends of the ARNs of the resources that refer to [`A`] or [`B`].
fn found(aws: &LocalAws, rest: &str) -> Vec<String> {
    names(&describe(
        &client(aws),
        &format!("&ImageId.1={A}&ImageId.2={B}{rest}"),
    ))
}

fn names(received: &Received) -> Vec<String> {
    assert_eq!(received.status, 200, "{}", received.text());
    let arns = received.all("arn").into_iter();
    arns.map(|arn| arn.rsplit(':').next().unwrap().to_owned())
        .collect()
}

fn a_world_of_resources() -> World {
    let world = a_world();
    for resource in [
        Resource::instance("i-1", A),
        Resource::instance("i-2", A).in_state("terminated"),
        Resource::instance("i-3", "ami-0000000000000000c"),
        Resource::parameter("/golden/ami", B),
        Resource::image_recipe("golden/1.0.0", A),
        Resource::container_recipe("web/2.0.0", B),
    ] {
        world.put_resource(ACCOUNT, REGION, resource);
    }
    world
}

#[test]
fn all_types_are_found_with_terminated_instances() {
    let aws = started(a_world_of_resources());
    assert_eq!(
        found(&aws, "&IncludeAllResourceTypes=true"),
        [
            "instance/i-1",
            "instance/i-2",
            "parameter/golden/ami",
            "image-recipe/golden/1.0.0",
            "container-recipe/web/2.0.0",
        ]
    );
    let one = describe(
        &client(&aws),
        &format!("&ImageId.1={B}&ResourceType.1.ResourceType=ssm:Parameter"),
    );
    assert_eq!(
        one.one("imageReferenceSet")
            .split_whitespace()
            .collect::<String>(),
        "<item><imageId>ami-0000000000000000b</imageId><resourceType>ssm:Parameter</resourceType>\
         <arn>arn:aws:ssm:us-east-1:111122223333:parameter/golden/ami</arn></item>"
    );
}

#[test]
fn state_names_exclude_other_instances() {
    let aws = started(a_world_of_resources());
    let instances = "&ResourceType.1.ResourceType=ec2:Instance";
    assert_eq!(found(&aws, instances), ["instance/i-1", "instance/i-2"]);
    let option = format!("{instances}&ResourceType.1.ResourceTypeOption.1.OptionName=state-name");
    let running = format!("{option}&ResourceType.1.ResourceTypeOption.1.OptionValue.1=running");
    assert_eq!(found(&aws, &running), ["instance/i-1"]);
    let two = format!("{running}&ResourceType.1.ResourceTypeOption.1.OptionValue.2=terminated");
    assert_eq!(found(&aws, &two), ["instance/i-1", "instance/i-2"]);
    let all = format!("{running}&IncludeAllResourceTypes=true");
    assert_eq!(
        found(&aws, &all).len(),
        4,
        "the option overrides the default"
    );
}

#[test]
fn a_template_is_found_within_its_newest_versions_only() {
    let world = a_world();
    let mut versions = vec![A];
    versions.extend([B; 10]);
    world.put_resource(ACCOUNT, REGION, Resource::launch_template("lt-1", versions));
    let aws = started(world);
    let template = "&ResourceType.1.ResourceType=ec2:LaunchTemplate";
    let to = |depth: &str| {
        let option = match depth {
            "" => String::new(),
            depth => format!(
                "&ResourceType.1.ResourceTypeOption.1.OptionName=version-depth\
                 &ResourceType.1.ResourceTypeOption.1.OptionValue.1={depth}"
            ),
        };
        let rest = format!("&ImageId.1={A}&ImageId.2={B}{template}{option}");
        let received = describe(&client(&aws), &rest);
        let ids = received.all("imageId").into_iter();
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(to(""), [B]);
    assert_eq!(to("10"), [B]);
    assert_eq!(to("11"), [A, B]);
    assert_eq!(to("10000"), [A, B]);
}

#[test]
fn only_the_callers_account_and_region_are_searched() {
    let world = a_world_of_resources();
    world.put_resource("444455556666", REGION, Resource::instance("i-4", A));
    world.put_resource(ACCOUNT, "eu-west-1", Resource::instance("i-5", A));
    let aws = started(world);
    let all = format!("&ImageId.1={A}&IncludeAllResourceTypes=true");
    let other = client(&aws).with_key("AKIA444455556666LOCA");
    assert_eq!(names(&describe(&other, &all)), ["instance/i-4"]);
    let other = client(&aws).in_region("eu-west-1");
    assert_eq!(names(&describe(&other, &all)), ["instance/i-5"]);
}

#[test]
fn pages_hold_every_reference_once() {
    let world = a_world();
    for number in 0..7 {
        let template = Resource::launch_template(format!("lt-{number}"), [A, B]);
        world.put_resource(ACCOUNT, REGION, template);
    }
    let aws = started(world);
    let client = client(&aws);
    let all = format!("&ImageId.1={A}&ImageId.2={B}&IncludeAllResourceTypes=true&MaxResults=5");
    let mut pages = vec![describe(&client, &all)];
    while let Some(token) = pages.last().unwrap().token() {
        pages.push(describe(&client, &format!("{all}&NextToken={token}")));
    }
    let rows: Vec<_> = pages
        .iter()
        .flat_map(|page| names(page).into_iter().zip(page.all("imageId")))
        .collect();
    let expected: Vec<_> = (0..7)
        .flat_map(|number| [A, B].map(|id| (format!("launch-template/lt-{number}"), id)))
        .collect();
    assert_eq!(rows, expected);
    assert_eq!(pages.len(), 3);
}

#[test]
fn refusals_have_ec2s_codes() {
    let aws = started(a_world_of_resources());
    let client = client(&aws);
    let all = "&IncludeAllResourceTypes=true";
    let one = format!("&ImageId.1={A}");
    let eleven: String = (1..=11)
        .map(|number| format!("&ImageId.{number}={A}"))
        .collect();
    let option = |resource_type: &str, name: &str, value: &str| {
        format!(
            "{one}&ResourceType.1.ResourceType={resource_type}\
             &ResourceType.1.ResourceTypeOption.1.OptionName={name}\
             &ResourceType.1.ResourceTypeOption.1.OptionValue.1={value}"
        )
    };
    let invalid = "InvalidParameterValue";
    for (rest, code) in [
        (all.to_owned(), "MissingParameter"),
        (one.clone(), "MissingParameter"),
        (
            format!("{one}&IncludeAllResourceTypes=false"),
            "MissingParameter",
        ),
        (format!("{eleven}{all}"), invalid),
        (format!("&ImageId.1=image{all}"), "InvalidAMIID.Malformed"),
        (format!("{one}{all}&MaxResults=4"), invalid),
        (
            format!("{one}&ResourceType.1.ResourceType=ec2:Volume"),
            invalid,
        ),
        (
            option("ec2:LaunchTemplate", "version-depth", "10001"),
            invalid,
        ),
        (
            option("ec2:LaunchTemplate", "state-name", "running"),
            invalid,
        ),
        (option("ec2:Instance", "state-name", "gone"), invalid),
        (option("ssm:Parameter", "version-depth", "1"), invalid),
        (
            format!("{one}{all}&NextToken=12345"),
            "InvalidPaginationToken",
        ),
    ] {
        assert_eq!(code_of(&describe(&client, &rest)), (400, code), "{rest}");
    }
    let dry = describe(&client, &format!("{one}{all}&DryRun=true"));
    assert_eq!(code_of(&dry), (412, "DryRunOperation"));
}

#[test]
fn a_fault_for_an_image_matches_only_requests_that_name_it() {
    let aws = started(a_world_of_resources());
    aws.faults()
        .add(Fault::new(FaultKind::Denied).asking_about(B));
    let all = "&IncludeAllResourceTypes=true";
    let one = describe(&client(&aws), &format!("&ImageId.1={A}{all}"));
    assert_eq!(names(&one).len(), 3);
    let both = describe(&client(&aws), &format!("&ImageId.1={A}&ImageId.2={B}{all}"));
    assert_eq!(code_of(&both), (403, "UnauthorizedOperation"));
}
