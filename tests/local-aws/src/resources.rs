//! Resources that refer to AMIs: what `DescribeImageReferences` finds.

use crate::world::World;

/// A resource of an account in a Region that refers to an AMI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// For example `ec2:Instance`.
    pub resource_type: String,
    /// What the resource's ARN ends with, after its type: an ID, a path, or a name and a version.
    pub name: String,
    /// The AMIs of the resource's versions, oldest first; only launch templates have several.
    pub image_ids: Vec<String>,
    /// The state of an instance.
    pub state: Option<String>,
}

/// A stored resource; new ones have larger sequence numbers.
#[derive(Debug)]
pub(crate) struct StoredResource {
    pub(crate) sequence: u64,
    pub(crate) resource: Resource,
}

/// The resources of a target.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    stored: Vec<StoredResource>,
    next_sequence: u64,
}

impl Resource {
    /// Creates a running instance; `name` is its ID.
    pub fn instance(name: impl Into<String>, image_id: impl Into<String>) -> Self {
        Self {
            state: Some("running".to_owned()),
            ..Self::of("ec2:Instance", name, image_id)
        }
    }

    /// Creates a launch template with the AMIs of its versions, oldest first; `name` is its ID.
    pub fn launch_template<I: Into<String>>(
        name: impl Into<String>,
        image_ids: impl IntoIterator<Item = I>,
    ) -> Self {
        Self {
            resource_type: "ec2:LaunchTemplate".to_owned(),
            name: name.into(),
            image_ids: image_ids.into_iter().map(Into::into).collect(),
            state: None,
        }
    }

    /// Creates a parameter of Systems Manager; `name` may be a path such as `/golden/ami`.
    pub fn parameter(name: impl Into<String>, image_id: impl Into<String>) -> Self {
        Self::of("ssm:Parameter", name, image_id)
    }

    /// Creates an image recipe; `name` has a version, as in `golden/1.0.0`.
    pub fn image_recipe(name: impl Into<String>, image_id: impl Into<String>) -> Self {
        Self::of("imagebuilder:ImageRecipe", name, image_id)
    }

    /// Creates a container recipe; `name` has a version, as in `golden/1.0.0`.
    pub fn container_recipe(name: impl Into<String>, image_id: impl Into<String>) -> Self {
        Self::of("imagebuilder:ContainerRecipe", name, image_id)
    }

    /// Sets the state of an instance.
    pub fn in_state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }

    fn of(resource_type: &str, name: impl Into<String>, image_id: impl Into<String>) -> Self {
        Self {
            resource_type: resource_type.to_owned(),
            name: name.into(),
            image_ids: vec![image_id.into()],
            state: None,
        }
    }

    /// Returns the resource's ARN in an account and Region.
    pub fn arn(&self, account: &str, region: &str) -> String {
        let (service, kind) = match self.resource_type.as_str() {
            "ec2:Instance" => ("ec2", "instance"),
            "ec2:LaunchTemplate" => ("ec2", "launch-template"),
            "ssm:Parameter" => ("ssm", "parameter"),
            "imagebuilder:ImageRecipe" => ("imagebuilder", "image-recipe"),
            "imagebuilder:ContainerRecipe" => ("imagebuilder", "container-recipe"),
            other => other.split_once(':').unwrap_or((other, other)),
        };
        // The slash before a parameter's path is its own.
        let name = self.name.trim_start_matches('/');
        format!("arn:aws:{service}:{region}:{account}:{kind}/{name}")
    }

    /// Returns the AMIs of the newest versions, each once, oldest first.
    pub(crate) fn images_of_newest(&self, versions: usize) -> Vec<&str> {
        let first = self.image_ids.len().saturating_sub(versions);
        let mut images: Vec<&str> = Vec::new();
        for image_id in self.image_ids.iter().skip(first) {
            if !images.contains(&image_id.as_str()) {
                images.push(image_id);
            }
        }
        images
    }
}

impl Resources {
    /// Stores a resource; one with the same type and name is replaced in its place.
    fn put(&mut self, resource: Resource) {
        let same = |stored: &&mut StoredResource| {
            stored.resource.resource_type == resource.resource_type
                && stored.resource.name == resource.name
        };
        match self.stored.iter_mut().find(same) {
            Some(stored) => stored.resource = resource,
            None => {
                self.stored.push(StoredResource {
                    sequence: self.next_sequence,
                    resource,
                });
                self.next_sequence += 1;
            }
        }
    }

    fn remove(&mut self, name: &str) -> bool {
        let before = self.stored.len();
        self.stored.retain(|stored| stored.resource.name != name);
        self.stored.len() < before
    }

    /// Returns the resources from a sequence number on, in order.
    pub(crate) fn from(&self, sequence: u64) -> impl Iterator<Item = &StoredResource> {
        let from = move |stored: &&StoredResource| stored.sequence >= sequence;
        self.stored.iter().filter(from)
    }
}

impl World {
    /// Puts a resource into a target; one with the same type and name is replaced.
    pub fn put_resource(&self, account: &str, region: &str, resource: Resource) {
        self.lock().target(account, region).resources.put(resource);
    }

    /// Removes the resources with a name. Returns whether there was one.
    pub fn remove_resource(&self, account: &str, region: &str, name: &str) -> bool {
        self.lock().target(account, region).resources.remove(name)
    }

    /// Returns the resources of a target, in the order in which they were put.
    pub fn resources(&self, account: &str, region: &str) -> Vec<Resource> {
        let mut state = self.lock();
        let stored = state.target(account, region).resources.from(0);
        stored.map(|stored| stored.resource.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_those_of_the_services() {
        let arn = |resource: Resource| resource.arn("111122223333", "eu-west-1");
        assert_eq!(
            arn(Resource::instance("i-1", "ami-1")),
            "arn:aws:ec2:eu-west-1:111122223333:instance/i-1"
        );
        assert_eq!(
            arn(Resource::launch_template("lt-1", ["ami-1"])),
            "arn:aws:ec2:eu-west-1:111122223333:launch-template/lt-1"
        );
        assert_eq!(
            arn(Resource::parameter("/golden/ami", "ami-1")),
            "arn:aws:ssm:eu-west-1:111122223333:parameter/golden/ami"
        );
        assert_eq!(
            arn(Resource::image_recipe("golden/1.0.0", "ami-1")),
            "arn:aws:imagebuilder:eu-west-1:111122223333:image-recipe/golden/1.0.0"
        );
        assert_eq!(
            arn(Resource::container_recipe("golden/1.0.0", "ami-1")),
            "arn:aws:imagebuilder:eu-west-1:111122223333:container-recipe/golden/1.0.0"
        );
    }

    #[test]
    fn a_resource_put_again_keeps_its_place() {
        let world = World::builder().build();
        let (account, region) = ("111122223333", "us-east-1");
        let running = Resource::instance("i-1", "ami-1");
        let recipe = Resource::image_recipe("golden/1.0.0", "ami-1");
        for resource in [&running, &recipe] {
            world.put_resource(account, region, resource.clone());
        }
        let terminated = running.in_state("terminated");
        world.put_resource(account, region, terminated.clone());
        assert_eq!(world.resources(account, region), [terminated, recipe]);
        assert!(world.remove_resource(account, region, "i-1"));
        assert!(!world.remove_resource(account, region, "i-1"));
        assert_eq!(world.resources(account, region).len(), 1);
    }
}
