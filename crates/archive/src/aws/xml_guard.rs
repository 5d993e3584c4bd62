//! A guard against responses that the SDK would read only in part.
//!
//! The SDK's XML decoder recovers silently from a truncated or malformed document: it returns what it has
//! found so far as if that were everything. It also takes only the first piece of an element's text: it drops
//! a CDATA section, and whatever follows a comment. For a claim of completeness that is the worst kind of
//! success, so every response that it decodes is checked first.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use quick_xml::Reader;
use quick_xml::events::Event;

/// Turns a successful response whose XML is not one complete, well-formed document into an error, which the
/// SDK retries.
#[derive(Debug)]
pub struct RejectBrokenXml;

#[dyn_dispatch_hint]
impl Intercept for RejectBrokenXml {
    fn name(&self) -> &'static str {
        "RejectBrokenXml"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if !response.status().is_success() {
            return Ok(());
        }
        let body = response.body().bytes().ok_or("the response was not read")?;
        check_whole_document(body).map_err(BoxError::from)
    }
}

const DIVIDED_TEXT: &str = "the response has a text with a comment inside";

/// Checks that a document is whole and well-formed, and has no text that a decoder would read only in part.
fn check_whole_document(document: &[u8]) -> Result<(), String> {
    let mut reader = Reader::from_reader(document);
    let (mut depth, mut roots) = (0_usize, 0_usize);
    // Whether the innermost element has had text since its start tag, and then a comment.
    let (mut text, mut interrupted) = (false, false);
    loop {
        let event = reader
            .read_event()
            .map_err(|error| format!("the response is not well-formed XML: {error}"))?;
        match event {
            Event::Start(_) => {
                roots += usize::from(depth == 0);
                depth += 1;
                (text, interrupted) = (false, false);
            }
            Event::Empty(_) => {
                roots += usize::from(depth == 0);
                (text, interrupted) = (false, false);
            }
            Event::End(_) => {
                depth -= 1;
                (text, interrupted) = (false, false);
            }
            Event::Text(stretch) if depth == 0 && !stretch.trim_ascii().is_empty() => {
                return Err("the answer has a text outside its root element".to_owned());
            }
            Event::Text(stretch) if interrupted && !stretch.trim_ascii().is_empty() => {
                return Err(DIVIDED_TEXT.to_owned());
            }
            Event::GeneralRef(_) if interrupted => return Err(DIVIDED_TEXT.to_owned()),
            Event::Text(_) | Event::GeneralRef(_) => text = true,
            Event::CData(_) => return Err("the response has a CDATA section".to_owned()),
            Event::Comment(_) | Event::PI(_) => interrupted = text,
            Event::Decl(_) | Event::DocType(_) => {}
            Event::Eof => break,
        }
    }
    match (roots, depth) {
        (1, 0) => Ok(()),
        (_, 0) => Err(format!(
            "the response has {roots} root elements instead of one"
        )),
        _ => Err(format!(
            "the response was truncated: {depth} elements are not closed"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_document_passes() {
        check_whole_document(b"<?xml version=\"1.0\"?>\n<a x='1'><!-- b --><b/>t&amp;<c> <!-- d -->\n<e><!-- f -->g&lt;h<!-- i --></e></c></a>\n")
            .unwrap();
    }

    #[test]
    fn every_cut_of_a_document_is_found() {
        let document = b"<a><b>text</b><c d=\"e\"/></a>";
        for end in 0..document.len() {
            assert!(
                check_whole_document(&document[..end]).is_err(),
                "cut after {end} bytes"
            );
        }
    }

    #[test]
    fn a_wrong_end_tag_and_a_second_root_are_found() {
        assert!(check_whole_document(b"<a><b></a></b>").is_err());
        assert!(check_whole_document(b"<a/><a/>").is_err());
    }

    #[test]
    fn a_text_that_the_decoder_would_shorten_is_found() {
        for text in [
            "<![CDATA[Team]]>",
            "Team<![CDATA[A]]>",
            "Team<!-- x -->A",
            "Team<?x?>&amp;",
            " <!-- x -->Team",
        ] {
            let document = format!("<a><b>{text}</b></a>");
            assert!(
                check_whole_document(document.as_bytes()).is_err(),
                "{document}"
            );
        }
    }
}
