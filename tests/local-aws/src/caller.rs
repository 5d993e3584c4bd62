//! The caller of a request.

use crate::faults::Service;
use crate::world::World;
use http::HeaderMap;

/// The Region of requests without a signature.
pub(crate) const UNSIGNED_REGION: &str = "us-east-1";

/// The caller of a request, its service and its Region, from the credential scope of the signature.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) service: Service,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) arn: String,
    pub(crate) user_id: String,
    pub(crate) has_expired: bool,
}

impl Caller {
    /// Reads `Credential=AKID/20261122/eu-west-1/ec2/aws4_request` of the `Authorization` header.
    pub(crate) fn of(headers: &HeaderMap, world: &World) -> Self {
        let authorization = headers
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let scope = authorization
            .split_once("Credential=")
            .and_then(|(_, rest)| rest.split([',', ' ']).next())
            .unwrap_or_default();
        let mut parts = scope.split('/');
        let access_key = parts.next().unwrap_or_default();
        let region = parts.nth(1).unwrap_or(UNSIGNED_REGION);
        let name = parts.next().unwrap_or_default();
        let service = Service::ALL
            .into_iter()
            .find(|service| service.name() == name)
            .unwrap_or(Service::S3);
        let now = world.now();
        let state = world.lock();
        let account = state.account_of(access_key).unwrap_or_default().to_owned();
        let session = state.sessions.get(access_key);
        let (arn, user_id) = match session {
            Some(session) => (
                session.assumed_role_arn(),
                format!("AROALOCALAWS:{}", session.name),
            ),
            None => (
                format!("arn:aws:iam::{account}:user/local"),
                "AIDALOCALAWS".to_owned(),
            ),
        };
        Self {
            service,
            region: region.to_owned(),
            arn,
            user_id,
            has_expired: session.is_some_and(|session| session.expires_at <= now),
            account,
        }
    }
}
