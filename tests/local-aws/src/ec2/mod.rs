//! EC2: image usage reports, AMIs and what refers to them, and Regions.

mod creation;
mod documents;
mod errors;
mod images;
mod listing;
mod pages;
mod references;
mod regions;
mod reports;
mod request;
mod resource_types;
mod service;

pub(crate) use request::Ec2Request;
pub(crate) use service::reply;
