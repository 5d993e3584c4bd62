//! Decodes EC2's answers in place of the SDK's decoder.
//!
//! The SDK's decoder reads a document that is cut short, or ill-formed in the middle, as one that ends there. It
//! also fails a whole page for one odd time. So the SDK sends the call, retries it, and decodes what EC2 answers
//! as an error; an answer that succeeds is decoded here, and refused unless it is a whole document.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeSerializationInterceptorContextRef, Error, Output,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::config_bag::{ConfigBag, FrozenLayer};
use image_usage_archive::aws::{CallFailure, check_whole_document};
use serde::de::DeserializeOwned;

/// An answer of EC2.
pub(super) trait Answer: DeserializeOwned + Send + Debug + 'static {
    /// The name of the document's root element.
    const ROOT: &'static str;
}

/// Decodes the answer to one call, and keeps it.
pub(super) struct Decoder<T> {
    decoded: Arc<Mutex<Option<T>>>,
    /// The operation's settings with the SDK's own decoder, for answers that are errors.
    operation: Option<FrozenLayer>,
    /// What the SDK returns instead of the answer: an output of the operation, without any field.
    empty: fn() -> Output,
}

impl<T> Clone for Decoder<T> {
    fn clone(&self) -> Self {
        Self {
            decoded: Arc::clone(&self.decoded),
            operation: self.operation.clone(),
            empty: self.empty,
        }
    }
}

impl<T: Debug> Debug for Decoder<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl<T: Answer> Decoder<T> {
    /// Decodes the answer to a call of this operation.
    pub(super) fn new(operation: &impl RuntimePlugin, empty: fn() -> Output) -> Self {
        Self {
            decoded: Arc::default(),
            operation: operation.config(),
            empty,
        }
    }

    /// The answer to the call.
    ///
    /// # Errors
    /// Fails if the call has not succeeded.
    pub(super) fn take(&self) -> Result<T, CallFailure> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || CallFailure::malformed("the answer was not decoded".to_owned());
        decoded.take().ok_or_else(missing)
    }
}

#[dyn_dispatch_hint]
impl<T: Answer> Intercept for Decoder<T> {
    fn name(&self) -> &'static str {
        "Decoder"
    }

    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let decoder = SharedResponseDeserializer::new(self.clone());
        config.interceptor_state().store_put(decoder);
        Ok(())
    }
}

impl<T: Answer> DeserializeResponse for Decoder<T> {
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        config: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        if !response.status().is_success() {
            let layer = self.operation.as_ref();
            let sdk = layer.and_then(|layer| layer.load::<SharedResponseDeserializer>());
            let sdk =
                sdk.ok_or_else(|| OrchestratorError::other("the operation has no decoder"))?;
            return sdk.deserialize_nonstreaming_with_config(response, config);
        }
        let body = response.body().bytes().unwrap_or_default();
        let answer = decode(body).map_err(|problem| OrchestratorError::response(problem.into()))?;
        *self.decoded.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        Ok((self.empty)())
    }
}

/// Decodes a document.
///
/// # Errors
/// Fails if it is not whole and well-formed, or has another root element.
fn decode<T: Answer>(document: &[u8]) -> Result<T, String> {
    let root = check_whole_document(document)?;
    if root != T::ROOT {
        return Err(format!("the answer is a {root} and not a {}", T::ROOT));
    }
    quick_xml::de::from_reader(document)
        .map_err(|error| format!("the answer is malformed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::answers::{EntriesPage, ReportsPage};
    use super::*;

    const PAGE: &str = "\
        <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <DescribeImageUsageReportsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\n\
        <requestId>r</requestId><imageUsageReportSet>\n\
        <item><reportId>amiur-1</reportId><imageId>ami-1</imageId><state>error</state>\
        <stateReason> odd &lt;b&gt; &#x1f600; </stateReason><creationTime>2026-11-12T06:00:05.250Z</creationTime>\
        <newField><item><a>1</a></item></newField>\
        <resourceTypeSet><item><resourceType>ec2:LaunchTemplate</resourceType><resourceTypeOptionSet><item>\
        <optionName>version-depth</optionName><optionValueSet><item>100</item></optionValueSet></item>\
        </resourceTypeOptionSet></item></resourceTypeSet><accountIdSet><item>222233334444</item></accountIdSet>\
        <tagSet><item><key>Owner</key><value>TeamA</value></item><item><key>Empty</key><value/></item></tagSet></item>\n\
        <item/></imageUsageReportSet><nextToken>more</nextToken></DescribeImageUsageReportsResponse>\n";

    fn page(text: &str) -> Result<ReportsPage, String> {
        decode(text.as_bytes())
    }

    #[test]
    fn a_page_is_decoded_verbatim_and_unknown_fields_are_ignored() {
        let page = page(PAGE).unwrap().into_page();
        assert_eq!(page.next_token.as_deref(), Some("more"));
        let [report, bare] = &page.rows[..] else {
            panic!("{page:?}")
        };
        assert_eq!(report.report_id.as_deref(), Some("amiur-1"));
        assert_eq!(report.state_reason.as_deref(), Some(" odd <b> \u{1f600} "));
        assert_eq!(report.resource_types[0].options[0].values, ["100"]);
        assert_eq!(report.requested_account_ids, ["222233334444"]);
        assert_eq!(report.tags["Owner"].as_deref(), Some("TeamA"));
        assert_eq!(report.tags["Empty"].as_deref(), Some(""));
        assert_eq!(*bare, Default::default());
    }

    #[test]
    fn every_cut_of_a_page_is_refused() {
        for end in 0..PAGE.trim_end().len() {
            if PAGE.is_char_boundary(end) {
                assert!(page(&PAGE[..end]).is_err(), "cut after {end} bytes");
            }
        }
    }

    #[test]
    fn another_root_a_second_one_and_text_outside_are_refused() {
        for wrong in [
            "<Response/>",
            "<DescribeImageUsageReportsResponse/><DescribeImageUsageReportsResponse/>",
            "<DescribeImageUsageReportsResponse/>text",
            "<DescribeImageUsageReportsResponse></a>",
            "",
        ] {
            assert!(page(wrong).is_err(), "{wrong}");
        }
        let bare = page("<DescribeImageUsageReportsResponse/>").unwrap();
        assert!(bare.into_page().rows.is_empty());
    }

    #[test]
    fn an_odd_field_costs_its_report_that_field_and_nothing_else() {
        let odd = PAGE
            .replace("amiur-1", "")
            .replace("2026-11-12T06:00:05.250Z", "")
            .replace("<nextToken>more</nextToken>", "<nextToken/>");
        let page = page(&odd).unwrap().into_page();
        assert_eq!(page.next_token, None);
        let report = &page.rows[0];
        assert_eq!((&report.report_id, report.creation_time), (&None, None));
        assert_eq!(report.image_id.as_deref(), Some("ami-1"));
        let entries = "<DescribeImageUsageReportEntriesResponse><imageUsageReportEntrySet><item>\
            <resourceType>ec2:Instance</resourceType><reportId>amiur-1</reportId><usageCount>many</usageCount>\
            <accountId>210987654321</accountId><reportCreationTime>soon</reportCreationTime></item>\
            </imageUsageReportEntrySet></DescribeImageUsageReportEntriesResponse>";
        let page = decode::<EntriesPage>(entries.as_bytes())
            .unwrap()
            .into_page();
        let entry = &page.rows[0];
        assert_eq!(
            (entry.usage_count, entry.report_creation_time),
            (None, None)
        );
        assert_eq!(entry.consumer_account_id.as_deref(), Some("210987654321"));
    }
}
