//! `DescribeImages`, and the entries of reports about AMIs that the world holds.

use super::{ACCOUNT, Client, REGION, Received, a_world, client, code_of, noon, started};
use local_aws::{CreationOutcome, Fault, FaultKind, Image, Page, When, World};
use time::Duration;

const OTHER_ACCOUNT: &str = "444455556666";

/// Returns the AMI ID with a number.
fn ami(number: usize) -> String {
    format!("ami-{number:017x}")
}

fn a_world_of_images(images: usize) -> World {
    let world = a_world();
    for number in 0..images {
        world.put_image(ACCOUNT, REGION, Image::new(ami(number)));
    }
    world
}

fn describe(client: &Client<'_>, rest: &str) -> Received {
    client.ec2(&format!("Action=DescribeImages&Version=2016-11-15{rest}"))
}

/// Returns the last digits of the listed IDs.
fn listed(client: &Client<'_>, rest: &str) -> String {
    last_digits(&describe(client, rest))
}

fn last_digits(received: &Received) -> String {
    assert_eq!(received.status, 200, "{}", received.text());
    let ids = received.all("imageId");
    ids.iter().map(|id| &id[id.len() - 1..]).collect()
}

#[test]
fn every_field_is_written_as_ec2_does() {
    let world = a_world();
    let launched = noon() - Duration::days(2);
    let image = Image {
        description: Some("a & b".to_owned()),
        ..Image::new(ami(1))
            .named("golden")
            .created_at(noon() - Duration::days(40))
            .last_launched_at(launched)
            .deprecated_at(noon() + Duration::days(400))
            .copied_from(ami(7), "eu-west-1")
            .tagged("Owner", "TeamA")
    };
    world.put_image(ACCOUNT, REGION, image);
    let aws = started(world);
    let received = describe(&client(&aws), "&Owner.1=self");
    assert_eq!(
        received
            .one("imagesSet")
            .split_whitespace()
            .collect::<String>(),
        "<item><imageId>ami-00000000000000001</imageId>\
         <imageLocation>111122223333/golden</imageLocation>\
         <imageState>available</imageState><imageOwnerId>111122223333</imageOwnerId>\
         <creationDate>2026-10-13T12:00:00.000Z</creationDate><isPublic>false</isPublic>\
         <architecture>x86_64</architecture><imageType>machine</imageType>\
         <platformDetails>Linux/UNIX</platformDetails>\
         <usageOperation>RunInstances</usageOperation><rootDeviceType>ebs</rootDeviceType>\
         <virtualizationType>hvm</virtualizationType><hypervisor>xen</hypervisor>\
         <enaSupport>true</enaSupport><bootMode>uefi-preferred</bootMode>\
         <imdsSupport>v2.0</imdsSupport><name>golden</name>\
         <description>a&amp;b</description><blockDeviceMapping><item>\
         <deviceName>/dev/xvda</deviceName><ebs><snapshotId>snap-00000000000000001</snapshotId>\
         <volumeSize>8</volumeSize><volumeType>gp3</volumeType>\
         <deleteOnTermination>true</deleteOnTermination><encrypted>false</encrypted></ebs>\
         </item></blockDeviceMapping><rootDeviceName>/dev/xvda</rootDeviceName>\
         <deprecationTime>2027-12-27T12:00:00.000Z</deprecationTime>\
         <deregistrationProtection>disabled</deregistrationProtection>\
         <sourceImageId>ami-00000000000000007</sourceImageId>\
         <sourceImageRegion>eu-west-1</sourceImageRegion>\
         <lastLaunchedTime>2026-11-20T12:00:00Z</lastLaunchedTime>\
         <tagSet><item><key>Owner</key><value>TeamA</value></item></tagSet></item>"
    );
}

#[test]
fn without_max_results_all_images_are_on_one_page() {
    let aws = started(a_world_of_images(2500));
    let client = client(&aws);
    let all = describe(&client, "&Owner.1=self");
    assert_eq!((all.all("imageId").len(), all.token()), (2500, None));

    let mut ids = Vec::new();
    let mut page = describe(&client, "&MaxResults=1000");
    loop {
        ids.extend(page.all("imageId").iter().map(ToString::to_string));
        let Some(token) = page.token() else { break };
        page = describe(&client, &format!("&MaxResults=1000&NextToken={token}"));
    }
    assert_eq!(ids, (0..2500).map(ami).collect::<Vec<_>>());
}

#[test]
fn pages_continue_after_a_removal_and_tokens_expire() {
    let world = a_world_of_images(6);
    let (clock, aws) = (world.clock(), started(world.clone()));
    let client = client(&aws);
    let first = describe(&client, "&MaxResults=2");
    let token = first.token().unwrap();
    world.remove_image(ACCOUNT, REGION, &ami(1));
    world.deregister_image(ACCOUNT, REGION, &ami(4));
    let second = format!("&MaxResults=9&NextToken={token}");
    assert_eq!(listed(&client, &second), "235");
    let other = describe(&client, &format!("{second}&Owner.1=self"));
    assert_eq!(code_of(&other), (400, "InvalidPaginationToken"));
    clock.advance(Duration::hours(2));
    let expired = describe(&client, &second);
    assert_eq!(code_of(&expired), (400, "InvalidPaginationToken"));
}

#[test]
fn disabled_images_are_listed_on_request_and_deregistered_ones_never() {
    let world = a_world_of_images(3);
    let aws = started(world.clone());
    let client = client(&aws);
    assert!(world.disable_image(ACCOUNT, REGION, &ami(0)));
    assert!(world.deregister_image(ACCOUNT, REGION, &ami(1)));
    assert_eq!(listed(&client, ""), "2");
    assert_eq!(listed(&client, "&IncludeDisabled=true"), "02");
    let filter = "&IncludeDisabled=true&Filter.1.Name=state&Filter.1.Value.1=disabled";
    assert_eq!(listed(&client, filter), "0");
    let gone = describe(&client, &format!("&ImageId.1={}", ami(1)));
    assert_eq!(code_of(&gone), (400, "InvalidAMIID.NotFound"));
}

#[test]
fn others_see_what_is_shared_or_public_without_the_owners_fields() {
    let world = a_world();
    let launched = |image: Image| image.last_launched_at(noon()).tagged("Owner", "TeamA");
    world.put_image(ACCOUNT, REGION, launched(Image::new(ami(0))));
    world.put_image(ACCOUNT, REGION, launched(Image::new(ami(1))).public());
    let shared = Image::new(ami(2)).shared_with(OTHER_ACCOUNT);
    world.put_image(ACCOUNT, REGION, launched(shared));
    world.put_image(OTHER_ACCOUNT, REGION, launched(Image::new(ami(3))));
    let aws = started(world);
    let owner = client(&aws);
    let other = client(&aws).with_key(&format!("AKIA{OTHER_ACCOUNT}LOCA"));

    assert_eq!(listed(&owner, ""), "012");
    assert_eq!(listed(&other, ""), "123");
    assert_eq!(listed(&other, "&Owner.1=self"), "3");
    assert_eq!(listed(&other, "&Owner.1=amazon"), "");
    assert_eq!(listed(&other, &format!("&Owner.1={ACCOUNT}")), "12");
    assert_eq!(
        listed(&other, &format!("&Owner.1=self&Owner.2={ACCOUNT}")),
        "123"
    );
    assert_eq!(listed(&other, "&ExecutableBy.1=self"), "2");
    assert_eq!(listed(&other, "&ExecutableBy.1=all"), "1");
    assert_eq!(
        listed(&owner, &format!("&ExecutableBy.1={OTHER_ACCOUNT}")),
        "2"
    );
    let private = describe(&other, &format!("&ImageId.1={}", ami(0)));
    assert_eq!(code_of(&private), (400, "InvalidAMIID.NotFound"));

    let seen = describe(&other, "");
    assert_eq!(seen.all("lastLaunchedTime").len(), 1);
    assert_eq!(seen.all("tagSet").len(), 1);
    assert_eq!(describe(&owner, "").all("lastLaunchedTime").len(), 3);
    assert_eq!(
        listed(&other, "&Filter.1.Name=tag-key&Filter.1.Value.1=Owner"),
        "3"
    );
    assert_eq!(listed(&client(&aws).in_region("eu-west-1"), ""), "");
}

#[test]
fn others_see_a_deprecated_image_by_its_id_or_on_request() {
    let world = a_world();
    let deprecated = Image::new(ami(0)).public().deprecated_at(noon());
    world.put_image(ACCOUNT, REGION, deprecated);
    let aws = started(world);
    let other = client(&aws).with_key(&format!("AKIA{OTHER_ACCOUNT}LOCA"));
    assert_eq!(listed(&client(&aws), ""), "0");
    assert_eq!(listed(&other, ""), "");
    assert_eq!(listed(&other, "&IncludeDeprecated=true"), "0");
    assert_eq!(listed(&other, &format!("&ImageId.1={}", ami(0))), "0");
}

#[test]
fn filters_have_wildcards_and_are_combined_with_and() {
    let world = a_world();
    let named = |number, name: &str| Image::new(ami(number)).named(name);
    world.put_image(
        ACCOUNT,
        REGION,
        named(0, "golden-1").tagged("Owner", "TeamA"),
    );
    world.put_image(
        ACCOUNT,
        REGION,
        named(1, "golden-2").tagged("Owner", "TeamB"),
    );
    world.put_image(ACCOUNT, REGION, named(2, "test-1").public());
    let pending = named(3, "golden-3")
        .in_state("pending")
        .copied_from(ami(0), "eu-west-1");
    world.put_image(ACCOUNT, REGION, pending.created_at(noon()));
    let aws = started(world);
    let client = client(&aws);
    for (name, value, expected) in [
        ("name", "golden-?", "013"),
        ("state", "pending", "3"),
        ("is-public", "true", "2"),
        ("image-id", "ami-*2", "2"),
        ("owner-id", ACCOUNT, "0123"),
        ("tag:Owner", "Team*", "01"),
        ("tag:owner", "Team*", ""),
        ("tag-key", "Own*", "01"),
        ("source-image-id", &ami(0), "3"),
        ("source-image-region", "eu-*", "3"),
        ("creation-date", "2026-11-22T*", "3"),
        ("architecture", "arm64", ""),
        ("root-device-type", "ebs", "0123"),
    ] {
        let filter = format!("&Filter.1.Name={name}&Filter.1.Value.1={value}");
        assert_eq!(listed(&client, &filter), expected, "{name}={value}");
    }
    let both = "&Filter.1.Name=name&Filter.1.Value.1=golden-*\
                &Filter.2.Name=tag:Owner&Filter.2.Value.1=TeamB&Filter.2.Value.2=TeamC";
    assert_eq!(listed(&client, both), "1");
}

#[test]
fn refusals_have_ec2s_codes() {
    let aws = started(a_world_of_images(2));
    let client = client(&aws);
    let id = ami(0);
    for (rest, code) in [
        ("&ImageId.1=image", "InvalidAMIID.Malformed"),
        ("&ImageId.1=ami-123", "InvalidAMIID.Malformed"),
        ("&ImageId.1=ami-ffffffffffffffff9", "InvalidAMIID.NotFound"),
        (
            &format!("&ImageId.1={id}&MaxResults=5"),
            "InvalidParameterCombination",
        ),
        ("&Owner.1=me", "InvalidUserID.Malformed"),
        ("&ExecutableBy.1=amazon", "InvalidUserID.Malformed"),
        ("&MaxResults=0", "InvalidParameterValue"),
        (
            "&Filter.1.Name=volume&Filter.1.Value.1=x",
            "InvalidParameterValue",
        ),
        ("&NextToken=12345", "InvalidPaginationToken"),
        ("&ImageIds.1=x", "UnknownParameter"),
    ] {
        assert_eq!(code_of(&describe(&client, rest)), (400, code), "{rest}");
    }
    let dry = describe(&client, "&DryRun=true");
    assert_eq!(code_of(&dry), (412, "DryRunOperation"));
}

#[test]
fn faults_change_pages_of_images_as_those_of_reports() {
    let aws = started(a_world_of_images(6));
    let client = client(&aws);
    let on = |kind: FaultKind, when: When| {
        aws.faults().clear();
        let fault = Fault::new(kind).on("DescribeImages").when(when);
        aws.faults().add(fault);
        describe(&client, "&MaxResults=2")
    };
    let first = When::Page(Page::First);
    let empty = on(FaultKind::EmptyPage, first);
    assert_eq!(last_digits(&empty), "");
    let token = empty.token().unwrap();
    assert_eq!(
        listed(&client, &format!("&MaxResults=2&NextToken={token}")),
        "01"
    );
    assert_eq!(last_digits(&on(FaultKind::DuplicateReport, first)), "011");
    let bare = on(FaultKind::BareReport, first);
    assert!(bare.text().contains("<item></item>"), "{}", bare.text());
    for (kind, code) in [
        (FaultKind::Denied, (403, "UnauthorizedOperation")),
        (FaultKind::Throttle, (503, "RequestLimitExceeded")),
        (FaultKind::Status500, (500, "InternalError")),
    ] {
        assert_eq!(code_of(&on(kind, When::Always)), code);
    }
    let malformed = on(FaultKind::MalformedXml, When::Always);
    assert!(malformed.text().ends_with("<unclosed attribute="));
}

#[test]
fn a_report_has_the_usage_at_the_moment_when_it_becomes_available() {
    let world = a_world_of_images(1);
    let clock = world.clock();
    world.set_creation_outcome(CreationOutcome::default());
    let aws = started(world.clone());
    let client = client(&aws);
    let create = |rest: &str| {
        let created = client.ec2(&format!(
            "Action=CreateImageUsageReport&Version=2016-11-15&ImageId={}\
             &ResourceType.1.ResourceType=ec2:Instance{rest}",
            ami(0)
        ));
        created.one("reportId").to_owned()
    };
    let counts = |report_id: &str| -> Vec<String> {
        let entries = client.ec2(&format!(
            "Action=DescribeImageUsageReportEntries&Version=2016-11-15&ReportId.1={report_id}"
        ));
        let counts = entries.all("usageCount").into_iter();
        counts.map(str::to_owned).collect()
    };
    let set = |count| world.set_usage(&ami(0), "777788889999", "ec2:Instance", count);

    let unused = create("");
    clock.advance(Duration::minutes(5));
    assert_eq!(counts(&unused), Vec::<String>::new());

    let used = create("");
    set(3);
    world.set_usage(&ami(0), "777788889999", "ec2:LaunchTemplate", 8);
    clock.advance(Duration::minutes(5));
    set(4);
    assert_eq!(counts(&used), ["3"]);

    let restricted = create("&AccountId.1=888899990000");
    clock.advance(Duration::minutes(5));
    assert_eq!(counts(&restricted), Vec::<String>::new());
    let later = create("");
    clock.advance(Duration::minutes(5));
    assert_eq!(counts(&later), ["4"]);
    assert_eq!(counts(&used), ["3"]);
}

#[test]
fn a_report_is_created_only_for_the_owner_of_an_ami_that_is_available() {
    let world = a_world_of_images(3);
    world.disable_image(ACCOUNT, REGION, &ami(1));
    world.deregister_image(ACCOUNT, REGION, &ami(2));
    world.put_image(OTHER_ACCOUNT, REGION, Image::new(ami(7)).public());
    let aws = started(world);
    let create = |number| {
        client(&aws).ec2(&format!(
            "Action=CreateImageUsageReport&Version=2016-11-15&ImageId={}\
             &ResourceType.1.ResourceType=ec2:Instance",
            ami(number)
        ))
    };
    assert_eq!(create(0).status, 200);
    assert_eq!(code_of(&create(1)), (400, "InvalidAMIID.Unavailable"));
    assert_eq!(code_of(&create(2)), (400, "InvalidAMIID.NotFound"));
    assert_eq!(code_of(&create(7)), (400, "InvalidAMIID.NotFound"));
    // The world does not hold it.
    assert_eq!(create(9).status, 200);
}

#[test]
fn every_report_about_some_amis_fails_until_it_no_longer_does() {
    let world = a_world_of_images(2);
    world.fail_reports_of(&ami(0), true);
    let clock = world.clock();
    let aws = started(world.clone());
    let states = || {
        for number in 0..2 {
            let created = client(&aws).ec2(&format!(
                "Action=CreateImageUsageReport&Version=2016-11-15&ImageId={}\
                 &ResourceType.1.ResourceType=ec2:Instance",
                ami(number)
            ));
            assert_eq!(created.status, 200, "{}", created.text());
        }
        clock.advance(Duration::HOUR);
        let reports = client(&aws).list("");
        let states: Vec<String> = reports
            .all("state")
            .iter()
            .map(|it| (*it).to_owned())
            .collect();
        states[states.len() - 2..].join(" ")
    };
    assert_eq!(states(), "error available");
    assert_eq!(states(), "error available");
    world.fail_reports_of(&ami(0), false);
    assert_eq!(states(), "available available");
}
