#![no_main]

use std::cell::LazyCell;

use futures_util::{StreamExt, stream};
use tokio::runtime::{Builder, Runtime};

#[path = "../src/page.rs"]
mod page;

thread_local! {
    static EC2: LazyCell<(Runtime, page::ReplayedEc2)> = LazyCell::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let ec2 = runtime.block_on(async {
            let ec2 = page::ReplayedEc2::start().await;
            spend_retries(&ec2).await;
            ec2
        });
        (runtime, ec2)
    });
}

/// Reads unreadable pages until the client has no retries left: from then on such a page costs no wait, and
/// its own failure is visible.
async fn spend_retries(ec2: &page::ReplayedEc2) {
    const AT_A_TIME: usize = 512;
    while ec2
        .read(200, b"")
        .await
        .is_err_and(|failure| failure.code == page::SECOND_ANSWER)
    {
        stream::iter(0..AT_A_TIME)
            .for_each_concurrent(AT_A_TIME, |_| async {
                let _ = ec2.read(200, b"").await;
            })
            .await;
    }
}

libfuzzer_sys::fuzz_target!(
    // Before the first input, whose time is measured.
    init: EC2.with(|ec2| {
        LazyCell::force(ec2);
    }),
    |bytes: &[u8]| EC2.with(|ec2| {
        let (runtime, ec2) = &**ec2;
        runtime.block_on(ec2.check(bytes));
    })
);
