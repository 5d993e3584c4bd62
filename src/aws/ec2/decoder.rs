//! Decodes EC2's answers in place of the SDK's decoder.
//!
//! The SDK's decoder reads a document that is truncated, or ill-formed in the middle, as one that ends there. It
//! also fails a whole page because of one odd time. So the SDK sends the call, retries it, and decodes what EC2 answers
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
use image_usage_archive::aws::CallFailure;
use quick_xml::de::{DeError, Deserializer};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess};

/// Decodes the answer to one call, and keeps it.
///
/// `T` is an enum with one variant, which has the name of the document's root element.
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

impl<T> Decoder<T> {
    /// Decodes the answer to a call of this operation.
    pub(super) fn new(operation: &impl RuntimePlugin, empty: fn() -> Output) -> Self {
        Self {
            decoded: Arc::default(),
            operation: operation.config(),
            empty,
        }
    }

    /// Returns the answer to the call.
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
impl<T: DeserializeOwned + Debug + Send + 'static> Intercept for Decoder<T> {
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

impl<T: DeserializeOwned + Debug + Send> DeserializeResponse for Decoder<T> {
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
        let answer = decode(body).map_err(|error| OrchestratorError::response(error.into()))?;
        *self.decoded.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        Ok((self.empty)())
    }
}

/// Decodes a document in one pass.
///
/// # Errors
/// Fails if it is not whole and well-formed, has another root element, or has a field twice. Attributes are not
/// checked: EC2 sends none except the namespace.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DeError> {
    let text = std::str::from_utf8(body).map_err(DeError::custom)?;
    let mut document = Deserializer::from_str(text);
    let answer = T::deserialize(&mut document)?;
    // The deserializer stops after the root element.
    match (&mut document).next_element::<IgnoredAny>()? {
        None => Ok(answer),
        Some(_) => Err(DeError::custom("the root element is not the last")),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    enum Answer {
        ListResponse(Listed),
    }

    #[derive(Default, Debug, PartialEq, Deserialize)]
    #[serde(default)]
    struct Listed {
        name: Option<String>,
        rows: Rows,
    }

    #[derive(Default, Debug, PartialEq, Deserialize)]
    #[serde(default)]
    struct Rows {
        item: Vec<String>,
    }

    fn document(fields: &str) -> String {
        format!("<ListResponse xmlns=\"ec2\">{fields}</ListResponse>")
    }

    fn read(document: &str) -> Listed {
        let Answer::ListResponse(listed) = decode(document.as_bytes()).unwrap();
        listed
    }

    fn problem(document: &str) -> String {
        match decode::<Answer>(document.as_bytes()) {
            Ok(read) => panic!("{document} was read as {read:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_document_cut_at_any_byte_is_refused() {
        let document = "<?xml version=\"1.0\"?>\n<ListResponse xmlns=\"ec2\"><!-- - --><name>a&amp;<![CDATA[b]]>\
            </name><rows><item>1</item><item/></rows>\
            <future><item>&lt;</item></future></ListResponse>";
        read(document);
        for end in 0..document.len() {
            problem(&document[..end]);
        }
    }

    #[test]
    fn a_document_that_is_not_one_well_formed_element_is_refused_with_the_reason() {
        for (document, reason) in [
            (String::new(), "unexpected"),
            (
                "<a/>".to_owned(),
                "unknown variant `a`, expected `ListResponse`",
            ),
            (
                "<html><body>Unavailable</body></html>".to_owned(),
                "unknown variant `html`",
            ),
            (document("").repeat(2), "not the last"),
            (format!("{}<a/>", document("")), "not the last"),
            (format!("{}more", document("")), "not the last"),
            (format!("{}&amp;", document("")), "not the last"),
            (format!("{}</a>", document("")), "`</a>`"),
            (format!("more{}", document("")), "unknown variant `$text`"),
            (document("<name>a</rows>"), "expected `</name>`"),
            (document("<future><a></b></future>"), "expected `</a>`"),
            (document("<name><a/></name>"), "mixed content"),
            (document("<name>a<a/></name>"), "mixed content"),
            (
                document("<name>a</name><name>b</name>"),
                "duplicate field `name`",
            ),
            (document("<name>&me;</name>"), "`me`"),
            (document("<name>a & b</name>"), "reference not closed"),
            (document("<name>&#xD800;</name>"), "character"),
            (document("<name>&#0;</name>"), "character"),
            (document("<name>&#+65;</name>"), "sign"),
        ] {
            let problem = problem(&document);
            assert!(problem.contains(reason), "{document}: {problem}");
        }
        assert!(decode::<Answer>(b"<ListResponse>\xff</ListResponse>").is_err());
    }

    #[test]
    fn white_space_comments_and_instructions_around_the_root_are_ignored() {
        let document = format!(
            "\u{feff}<?xml version=\"1.0\"?>\n<!-- a --><!DOCTYPE b>{}\n<!-- c --><?d?>\n",
            document("<name>a</name>")
        );
        assert_eq!(read(&document).name.as_deref(), Some("a"));
    }

    #[test]
    fn a_text_is_read_whole_however_it_is_written() {
        for written in [
            "Team &lt;A&#62;&#x20;",
            "<![CDATA[Team <A> ]]>",
            "Team<![CDATA[ <A]]>&gt; ",
            "<!-- one -->Team <!-- two -->&lt;A<?three?>&gt; ",
        ] {
            let read = read(&document(&format!("<name>{written}</name>")));
            assert_eq!(read.name.as_deref(), Some("Team <A> "), "{written}");
        }
    }

    #[test]
    fn a_missing_field_is_none_and_an_empty_one_is_empty() {
        assert_eq!(read("<ListResponse/>"), Listed::default());
        for empty in ["<name/>", "<name></name>", "<name><!-- --></name>"] {
            assert_eq!(read(&document(empty)).name.as_deref(), Some(""), "{empty}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_prefixes_are_not_needed() {
        let read = read(&document(
            "<future><name>b</name><item/><ListResponse/></future>text<x:name xmlns:x='y'>a</x:name><future/>\
             <rows>\n <item>1</item>\n <item/><future/></rows>",
        ));
        assert_eq!(read.name.as_deref(), Some("a"));
        assert_eq!(read.rows.item, ["1", ""]);
    }
}
