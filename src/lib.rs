#![doc = include_str!("../docs/architecture.md")]

mod archive;
pub mod audit;
pub mod aws;
pub mod lambda;
pub mod request;
pub mod settings;
mod staging;
