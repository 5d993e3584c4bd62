//! The Lambda function: settings, AWS clients, the runtime. It decides nothing.

use std::process::ExitCode;

use image_usage_archive::aws::Aws;
use image_usage_auditor::audit::Auditor;
use image_usage_auditor::lambda;
use image_usage_auditor::settings::{InvalidSettings, Settings};
use lambda_runtime::{LambdaEvent, service_fn};

fn main() -> Result<ExitCode, lambda_runtime::Error> {
    lambda::log_as_json();
    lambda::runtime()?.block_on(serve())
}

async fn serve() -> Result<ExitCode, lambda_runtime::Error> {
    let auditor = match start().await {
        Ok(auditor) => auditor,
        Err(error) => {
            lambda::refuse_to_start(&error).await?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let auditor = &auditor;
    let handler = service_fn(|event: LambdaEvent<_>| lambda::answer(auditor, event));
    lambda_runtime::run(handler)
        .await
        .map(|()| ExitCode::SUCCESS)
}

async fn start() -> Result<Auditor, InvalidSettings> {
    let settings = lambda::limit_concurrency(Settings::from_environment()?);
    let aws = Aws::from_environment().await;
    let home = aws.region().ok_or_else(InvalidSettings::no_region)?;
    let function_name = lambda::function_name();
    Ok(Auditor::new(settings, &aws, home, function_name))
}
