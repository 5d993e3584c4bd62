//! The smallest Lambda function in Rust: the floor of the start.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let handler = service_fn(|_: LambdaEvent<Value>| async { Ok::<_, Error>("hello, world") });
    lambda_runtime::run(handler).await
}
