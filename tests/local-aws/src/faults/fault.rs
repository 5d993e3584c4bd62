//! What a fault is: which requests it matches, and how they fail.

/// A service of the local AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Amazon EC2.
    Ec2,
    /// AWS Security Token Service.
    Sts,
    /// AWS Organizations.
    Organizations,
    /// Amazon S3.
    S3,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 4] = [Self::Ec2, Self::Sts, Self::Organizations, Self::S3];

    /// Returns the service's name in a credential scope.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Sts => "sts",
            Self::Organizations => "organizations",
            Self::S3 => "s3",
        }
    }
}

/// A rule that makes requests fail.
///
/// Every `Option` that is `None` matches everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The service of the request.
    pub service: Option<Service>,
    /// The operation, for example `DescribeImageUsageReports` or `PutObject`.
    pub operation: Option<String>,
    /// The account of the caller.
    pub account: Option<String>,
    /// The Region of the request.
    pub region: Option<String>,
    /// A part of the S3 key; matches only requests with a key.
    pub key_contains: Option<String>,
    /// A report; matches only requests that name it by its ID.
    pub report_id: Option<String>,
    /// An AMI; matches only requests that name it by its ID.
    pub image_id: Option<String>,
    /// A parameter (EC2) or a header (S3); matches only requests that have it.
    pub having: Option<String>,
    /// The same; matches only requests that lack it.
    pub lacking: Option<String>,
    /// Which of the matching requests fail.
    pub when: When,
    /// Whether the request takes effect before it fails: an object is stored, the response lost.
    pub after_effect: bool,
    /// How the requests fail.
    pub kind: FaultKind,
}

/// Which of the requests that a fault matches fail.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum When {
    /// All of them.
    #[default]
    Always,
    /// The one with this number, counted from 0.
    Nth(u64),
    /// The first N.
    FirstN(u64),
    /// Those that ask for this page of a listing.
    Page(Page),
    /// Each with this probability, drawn from the seed.
    Probability {
        /// From 0 (never) to 1 (always).
        p: f64,
        /// The seed of the draws.
        seed: u64,
    },
}

/// The position of a page in its listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The page requested without a token.
    First,
    /// A page that is neither the first nor the last.
    Middle,
    /// The page without a next token.
    Last,
    /// The page with this number, counted from 0.
    Number(u32),
}

/// How a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The caller lacks a permission: 403, `UnauthorizedOperation` or `AccessDenied`.
    Denied,
    /// The credentials are refused: `AuthFailure` with 401, or the service's own code.
    AuthFailure,
    /// Too many requests: `RequestLimitExceeded` with 503, `SlowDown` or `Throttling`.
    Throttle,
    /// Too many requests by EC2's own token buckets, one pair for each account and Region.
    TokenBucket,
    /// An internal error: 500.
    Status500,
    /// An unavailable service: 503, `Unavailable` or `SlowDown`.
    Status503,
    /// Any error.
    Error {
        /// The HTTP status.
        status: u16,
        /// The error's code.
        code: String,
        /// The error's message.
        message: String,
    },
    /// The connection is closed without a response.
    CloseBeforeAnswer,
    /// The connection is reset (RST) after half of the body.
    ResetMidBody,
    /// The connection is closed normally (FIN) after half of the announced body.
    CutBody,
    /// The document is cut off inside an element; the HTTP message is complete.
    MalformedXml,
    /// A legal document with unknown fields, comments and numeric character references.
    UnknownMembersAndEntities,
    /// A legal document with its texts in CDATA sections; EC2 writes none.
    CData,
    /// The second half of the body never arrives, only a byte of white space now and then.
    SlowBody,
    /// The true response, later.
    Latency {
        /// How much later.
        milliseconds: u64,
    },
    /// The page's token is the one it was requested with; matches only requests with a token.
    RepeatToken,
    /// The listing never ends: after `length` page tokens, the first of them comes again.
    ///
    /// Every page holds what the first page holds. With a length of 1 the same token comes
    /// again and again, as with `RepeatToken`, but from the first page on.
    TokenCycle {
        /// How many different tokens there are; at least 1.
        length: u32,
    },
    /// `InvalidPaginationToken`; matches only requests with a token.
    ExpireToken,
    /// A page without rows, whose token continues where this page began.
    EmptyPage,
    /// `<nextToken/>` instead of no token.
    EmptyToken,
    /// The page's last row (report, entry, AMI or reference) is listed twice, and once more on the
    /// next page.
    DuplicateReport,
    /// The page has one more row, without any field.
    BareReport,
    /// The Region is not enabled for the account.
    RegionDisabled,
    /// The caller's temporary credentials have expired.
    ExpireCredentials,
}

impl FaultKind {
    /// Returns S3's 409: another conditional write is in progress, and the client should retry.
    pub fn conditional_request_conflict() -> Self {
        Self::Error {
            status: 409,
            code: "ConditionalRequestConflict".to_owned(),
            message: "A conflicting conditional operation is currently in progress against this resource. Please try again.".to_owned(),
        }
    }

    /// Returns S3's 412: a condition of the request is not met.
    pub fn precondition_failed() -> Self {
        Self::Error {
            status: 412,
            code: "PreconditionFailed".to_owned(),
            message: "At least one of the pre-conditions you specified did not hold".to_owned(),
        }
    }

    pub(super) fn needs_page_token(&self) -> bool {
        matches!(self, Self::RepeatToken | Self::ExpireToken)
    }

    pub(super) fn needs_listing(&self) -> bool {
        matches!(
            self,
            Self::RepeatToken
                | Self::TokenCycle { .. }
                | Self::ExpireToken
                | Self::EmptyPage
                | Self::EmptyToken
                | Self::DuplicateReport
                | Self::BareReport
        )
    }
}

impl Fault {
    /// Creates a fault that matches every request of every service.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            service: None,
            operation: None,
            account: None,
            region: None,
            key_contains: None,
            report_id: None,
            image_id: None,
            having: None,
            lacking: None,
            when: When::Always,
            after_effect: false,
            kind,
        }
    }

    /// Limits the fault to one service.
    pub fn in_service(mut self, service: Service) -> Self {
        self.service = Some(service);
        self
    }

    /// Limits the fault to one operation.
    pub fn on(mut self, operation: &str) -> Self {
        self.operation = Some(operation.to_owned());
        self
    }

    /// Limits the fault to one account.
    pub fn in_account(mut self, account: &str) -> Self {
        self.account = Some(account.to_owned());
        self
    }

    /// Limits the fault to one Region.
    pub fn in_region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    /// Limits the fault to S3 keys that contain this part.
    pub fn on_key(mut self, part: &str) -> Self {
        self.key_contains = Some(part.to_owned());
        self
    }

    /// Matches only requests with this parameter (EC2) or header (S3).
    pub fn having(mut self, name: &str) -> Self {
        self.having = Some(name.to_owned());
        self
    }

    /// Matches only requests without this parameter (EC2) or header (S3).
    pub fn lacking(mut self, name: &str) -> Self {
        self.lacking = Some(name.to_owned());
        self
    }

    /// Limits the fault to requests that name a report by its ID.
    pub fn asking_for(mut self, report_id: &str) -> Self {
        self.report_id = Some(report_id.to_owned());
        self
    }

    /// Limits the fault to requests that name an AMI by its ID.
    pub fn asking_about(mut self, image_id: &str) -> Self {
        self.image_id = Some(image_id.to_owned());
        self
    }

    /// Sets which of the matching requests fail.
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Lets the request take effect before it fails.
    pub fn after_effect(mut self) -> Self {
        self.after_effect = true;
        self
    }
}
