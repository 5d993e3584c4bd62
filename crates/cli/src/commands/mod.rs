//! The commands, a file each.

pub(crate) mod completions;
pub(crate) mod images;
pub(crate) mod plan;
pub(crate) mod verify;
pub(crate) mod who;
