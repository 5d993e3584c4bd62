//! Listings whose page tokens repeat.

use super::failure::{CallFailure, FailureKind};
use crate::domain::error_code::ErrorCode;

/// Detects a cycle of page tokens in constant space (Brent's algorithm).
///
/// The SDK's paginators take a repeated token for the end of a listing, so no listing uses them.
#[derive(Default, Debug)]
pub struct TokenCycle {
    anchor: Option<String>,
    pages: u64,
}

impl TokenCycle {
    /// Checks the token `next`, which the page asked for with `asked_with` returned.
    ///
    /// # Errors
    /// Fails if it closes a cycle: the listing of this service would never end. A cycle of any length is found
    /// within a few times the pages before and in it.
    pub fn check(
        &mut self,
        service: &str,
        asked_with: Option<&str>,
        next: &str,
    ) -> Result<(), CallFailure> {
        if !self.closes_at(asked_with, next) {
            return Ok(());
        }
        Err(CallFailure::own(
            ErrorCode::RepeatedToken,
            format!("{service} returned the same page token twice, so the listing would never end"),
            FailureKind::Transient,
        ))
    }

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
    fn a_cycle_of_tokens_of_any_length_and_start_is_found() {
        for (lead, length) in [(0, 1), (0, 2), (3, 1), (5, 7), (100, 64)] {
            let token = |page: usize| match page < lead {
                true => format!("lead-{page}"),
                false => format!("cycle-{}", (page - lead) % length),
            };
            let mut tokens = TokenCycle::default();
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
    fn a_listing_without_a_cycle_is_left_alone() {
        let mut tokens = TokenCycle::default();
        assert!((0..10_000_u32).all(|page| !tokens.closes_at(None, &page.to_string())));
    }
}
