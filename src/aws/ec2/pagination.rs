//! Pagination state of an EC2 listing: the page token, the page size, and when to restart.
//!
//! The SDK's paginators are not used: they take a repeated token for the end of a listing.

use image_usage_archive::aws::{CallFailure, FailureKind, TokenCycle};

/// One page of a listing.
#[derive(Debug)]
pub struct ListedPage<T> {
    /// What is listed, in EC2's order; a page may be empty and still not be the last.
    pub rows: Vec<T>,
    /// Where the next page starts; `None` after the last one.
    pub next_token: Option<String>,
}

/// An empty token is EC2's other way to say that there is no next page.
pub(super) fn next_token(token: Option<String>) -> Option<String> {
    token.filter(|token| !token.is_empty())
}

/// A listing under way.
#[derive(Debug)]
pub(crate) struct PageCursor {
    max_results: Option<u32>,
    token: Option<String>,
    cycle: TokenCycle,
    restarted: bool,
}

impl PageCursor {
    /// Starts a listing; `max_results` rows are requested in one call, `None` leaves it to EC2.
    pub(crate) fn new(max_results: Option<u32>) -> Self {
        Self {
            max_results,
            token: None,
            cycle: TokenCycle::default(),
            restarted: false,
        }
    }

    /// Returns how many rows to request in the next call.
    pub(crate) fn max_results(&self) -> Option<u32> {
        self.max_results
    }

    /// Returns the token of the next page; `None` for the first one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Restarts the listing if that can fix the failure: once for an expired token, and with half the page size,
    /// at last without one, if EC2 refuses the size. All rows come again then.
    pub(crate) fn restart_after(&mut self, failure: &CallFailure) -> bool {
        let can_fix = match (failure.kind, self.max_results) {
            (FailureKind::TokenRefused, _) => {
                self.token.is_some() && !std::mem::replace(&mut self.restarted, true)
            }
            (FailureKind::PageSizeRefused, Some(size)) => {
                self.max_results = Some(size / 2).filter(|half| *half > 0);
                true
            }
            (FailureKind::PageSizeBesideIds, Some(_)) => {
                self.max_results = None;
                true
            }
            _ => false,
        };
        if can_fix {
            self.token = None;
            self.cycle = TokenCycle::default();
        }
        can_fix
    }

    /// Advances to the next page. Returns whether there is one.
    ///
    /// # Errors
    /// Fails if the token has been returned before: the listing would never end.
    pub(crate) fn advance(&mut self, next: Option<String>) -> Result<bool, CallFailure> {
        if let Some(next) = &next {
            self.cycle.check("EC2", self.token.as_deref(), next)?;
        }
        self.token = next;
        Ok(self.token.is_some())
    }
}

#[cfg(test)]
mod tests {
    use image_usage_archive::domain::error_code::ErrorCode;

    use super::*;

    fn failure(kind: FailureKind) -> CallFailure {
        CallFailure::own(ErrorCode::MalformedResponse, String::new(), kind)
    }

    #[test]
    fn a_listing_ends_at_a_page_without_a_token() {
        let mut cursor = PageCursor::new(None);
        assert!(cursor.advance(Some("a".to_owned())).unwrap());
        assert_eq!(cursor.token(), Some("a"));
        assert!(!cursor.advance(None).unwrap());
    }

    #[test]
    fn a_cycle_of_tokens_is_a_transient_failure_of_its_own_code() {
        let mut cursor = PageCursor::new(None);
        let mut tokens = ["a", "b", "c"].into_iter().cycle().take(20);
        let repeated = tokens
            .find_map(|token| cursor.advance(Some(token.to_owned())).err())
            .unwrap();
        assert_eq!(repeated.code, "RepeatedToken");
        assert_eq!(repeated.kind, FailureKind::Transient);
    }

    #[test]
    fn an_expired_token_restarts_a_listing_once_and_never_its_first_page() {
        let expired = failure(FailureKind::TokenRefused);
        let mut cursor = PageCursor::new(Some(500));
        assert!(!cursor.restart_after(&expired));
        cursor.advance(Some("a".to_owned())).unwrap();
        assert!(cursor.restart_after(&expired));
        assert_eq!((cursor.token(), cursor.max_results()), (None, Some(500)));
        // EC2 may return the tokens of the first attempt again.
        cursor.advance(Some("a".to_owned())).unwrap();
        assert!(!cursor.restart_after(&expired));
    }

    #[test]
    fn a_refused_page_size_is_halved_and_at_last_left_to_ec2() {
        let refused = failure(FailureKind::PageSizeRefused);
        let mut cursor = PageCursor::new(Some(5));
        for smaller in [Some(2), Some(1), None] {
            cursor.advance(Some("a".to_owned())).unwrap();
            assert!(cursor.restart_after(&refused));
            assert_eq!((cursor.token(), cursor.max_results()), (None, smaller));
        }
        assert!(!cursor.restart_after(&refused));
    }

    #[test]
    fn a_page_size_that_is_refused_beside_ids_is_left_to_ec2_at_once() {
        let mut cursor = PageCursor::new(Some(500));
        assert!(!cursor.restart_after(&failure(FailureKind::Denied)));
        assert!(cursor.restart_after(&failure(FailureKind::PageSizeBesideIds)));
        assert_eq!(cursor.max_results(), None);
        assert!(!cursor.restart_after(&failure(FailureKind::PageSizeBesideIds)));
    }
}
