//! Where a listing of EC2 stands: its page token, and what to do when one is refused.
//!
//! The SDK's paginators are not used, for they take a repeated token for the end of a listing.

use image_usage_archive::aws::{CallFailure, FailureKind};

/// A listing under way.
#[derive(Debug)]
pub(crate) struct PageCursor {
    max_results: Option<u32>,
    token: Option<String>,
    token_loop: TokenLoop,
    restarted: bool,
}

impl PageCursor {
    /// Starts a listing; `max_results` rows are asked for in one call, `None` leaves it to EC2.
    pub(crate) fn new(max_results: Option<u32>) -> Self {
        Self {
            max_results,
            token: None,
            token_loop: TokenLoop::default(),
            restarted: false,
        }
    }

    /// The rows to ask for in the next call.
    pub(crate) fn max_results(&self) -> Option<u32> {
        self.max_results
    }

    /// The token of the next page; `None` for the first one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Starts the listing again where that mends the failure: once for a token that has run out, and once
    /// for a page size that EC2 doesn't take. All rows come again then.
    pub(crate) fn restart_after(&mut self, failure: &CallFailure) -> bool {
        let mends = match failure.kind {
            FailureKind::TokenRefused => {
                self.token.is_some() && !std::mem::replace(&mut self.restarted, true)
            }
            FailureKind::PageSizeRefused => self.max_results.take().is_some(),
            _ => false,
        };
        if mends {
            self.token = None;
            self.token_loop = TokenLoop::default();
        }
        mends
    }

    /// Turns to the next page, and tells if there is one.
    ///
    /// # Errors
    /// Fails when the token has been given before: the listing has no end.
    pub(crate) fn advance(&mut self, next: Option<String>) -> Result<bool, CallFailure> {
        if let Some(next) = &next
            && self.token_loop.closes_at(self.token.as_deref(), next)
        {
            return Err(CallFailure {
                code: "RepeatedToken".to_owned(),
                message: "EC2 gave a page token for the second time: the listing has no end"
                    .to_owned(),
                request_id: None,
                kind: FailureKind::Transient,
            });
        }
        self.token = next;
        Ok(self.token.is_some())
    }
}

/// Finds out when a listing's tokens go round in a circle, remembering one of them (after Brent).
#[derive(Default, Debug)]
struct TokenLoop {
    anchor: Option<String>,
    pages: u64,
}

impl TokenLoop {
    /// Whether this token has been given before: the one that was asked with, or the one remembered.
    fn closes_at(&mut self, asked_with: Option<&str>, next: &str) -> bool {
        if asked_with == Some(next) || self.anchor.as_deref() == Some(next) {
            return true;
        }
        self.pages += 1;
        if self.pages.is_power_of_two() {
            self.anchor = Some(next.to_owned());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_of_tokens_of_any_length_and_start_is_found() {
        for (lead, length) in [(0, 1), (0, 2), (3, 1), (5, 7), (100, 64)] {
            let token = |page: usize| match page < lead {
                true => format!("lead-{page}"),
                false => format!("circle-{}", (page - lead) % length),
            };
            let mut tokens = TokenLoop::default();
            let found = (0..4 * (lead + length) + 4).find(|&page| {
                let asked_with = page.checked_sub(1).map(token);
                tokens.closes_at(asked_with.as_deref(), &token(page))
            });
            assert!(
                found.is_some_and(|page| page >= lead + length),
                "{lead} {length}: {found:?}"
            );
        }
    }

    #[test]
    fn a_listing_without_a_circle_is_left_alone() {
        let mut tokens = TokenLoop::default();
        assert!((0..10_000_u32).all(|page| !tokens.closes_at(None, &page.to_string())));
    }
}
