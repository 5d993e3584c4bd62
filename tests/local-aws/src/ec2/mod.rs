//! EC2: the four operations of image usage reports, and `DescribeRegions`.

mod creation;
mod documents;
mod errors;
mod listing;
mod pages;
mod regions;
mod request;
mod service;

pub(crate) use request::Ec2Request;
pub(crate) use service::reply;
