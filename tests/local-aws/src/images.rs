//! AMIs: what they are, and what happens to them.

use crate::world::{Tag, World};
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

/// How long EC2 takes to show that an AMI was launched, unless a world sets another time.
pub(crate) const LAUNCH_LAG: Duration = Duration::DAY;

/// An AMI. As in EC2, nearly every field is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The AMI's ID.
    pub image_id: String,
    /// The AMI's name.
    pub name: Option<String>,
    /// The AMI's description.
    pub description: Option<String>,
    /// `available`, `disabled`, `deregistered`, `pending`, or anything else.
    pub state: Option<String>,
    /// Whether every account may launch the AMI.
    pub public: bool,
    /// The accounts that may launch the AMI.
    pub shared_with: Vec<String>,
    /// When the AMI was created.
    pub creation_time: Option<OffsetDateTime>,
    /// When EC2 says that the AMI was last launched; only its owner sees it.
    pub last_launched_time: Option<OffsetDateTime>,
    /// When the AMI is deprecated.
    pub deprecation_time: Option<OffsetDateTime>,
    /// For example `disabled` or `enabled-without-cooldown`.
    pub deregistration_protection: Option<String>,
    /// The AMI that this one is a copy of.
    pub source_image_id: Option<String>,
    /// The Region of the AMI that this one is a copy of.
    pub source_image_region: Option<String>,
    /// The AMI's tags, in order; only its owner sees them.
    pub tags: Vec<Tag>,
    /// The AMI's volumes.
    pub block_devices: Vec<BlockDevice>,
}

/// A volume of an AMI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// For example `/dev/xvda`.
    pub device_name: String,
    /// The snapshot that the volume is created from.
    pub snapshot_id: String,
    /// The volume's size.
    pub size_gib: u32,
}

impl Image {
    /// Creates a private AMI that is `available`, with one volume of 8 GiB and no creation time.
    pub fn new(image_id: impl Into<String>) -> Self {
        let image_id = image_id.into();
        let hex = image_id.strip_prefix("ami-").unwrap_or(&image_id);
        Self {
            name: Some(format!("image-{hex}")),
            state: Some("available".to_owned()),
            deregistration_protection: Some("disabled".to_owned()),
            block_devices: vec![BlockDevice {
                device_name: "/dev/xvda".to_owned(),
                snapshot_id: format!("snap-{hex}"),
                size_gib: 8,
            }],
            image_id,
            ..Self::default()
        }
    }

    /// Sets the name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the state.
    pub fn in_state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Lets every account launch the AMI.
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// Lets one more account launch the AMI.
    pub fn shared_with(mut self, account: impl Into<String>) -> Self {
        self.shared_with.push(account.into());
        self
    }

    /// Sets the creation time.
    pub fn created_at(mut self, time: OffsetDateTime) -> Self {
        self.creation_time = Some(time);
        self
    }

    /// Sets the time of the last launch that EC2 shows.
    pub fn last_launched_at(mut self, time: OffsetDateTime) -> Self {
        self.last_launched_time = Some(time);
        self
    }

    /// Sets the time of the deprecation.
    pub fn deprecated_at(mut self, time: OffsetDateTime) -> Self {
        self.deprecation_time = Some(time);
        self
    }

    /// Sets the source of a copy.
    pub fn copied_from(mut self, image_id: impl Into<String>, region: impl Into<String>) -> Self {
        self.source_image_id = Some(image_id.into());
        self.source_image_region = Some(region.into());
        self
    }

    /// Adds a tag.
    pub fn tagged(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push(Tag::new(key, value));
        self
    }

    /// Returns whether EC2 lists the AMI at all.
    pub(crate) fn is_registered(&self) -> bool {
        self.state.as_deref() != Some("deregistered")
    }
}

/// The AMIs of one Region, of all accounts, in the order in which they were put.
#[derive(Debug, Default)]
pub(crate) struct Images {
    stored: BTreeMap<u64, StoredImage>,
    sequences: BTreeMap<String, u64>,
    next_sequence: u64,
}

/// An AMI with its owner and the launches that EC2 does not show yet.
#[derive(Debug)]
pub(crate) struct StoredImage {
    pub(crate) owner: String,
    pub(crate) image: Image,
    launches: Vec<Launch>,
}

#[derive(Debug)]
struct Launch {
    launched_at: OffsetDateTime,
    shown_from: OffsetDateTime,
}

impl Images {
    /// Stores an AMI; one with the same ID is replaced in its place.
    fn put(&mut self, owner: &str, image: Image) {
        let sequence = match self.sequences.get(&image.image_id) {
            Some(sequence) => *sequence,
            None => self.next_sequence,
        };
        self.next_sequence = self.next_sequence.max(sequence + 1);
        self.sequences.insert(image.image_id.clone(), sequence);
        let stored = StoredImage {
            owner: owner.to_owned(),
            image,
            launches: Vec::new(),
        };
        self.stored.insert(sequence, stored);
    }

    fn remove(&mut self, owner: &str, image_id: &str) -> bool {
        if self.of_owner(owner, image_id).is_none() {
            return false;
        }
        let sequence = self.sequences.remove(image_id);
        sequence.is_some_and(|sequence| self.stored.remove(&sequence).is_some())
    }

    fn of_owner(&mut self, owner: &str, image_id: &str) -> Option<&mut StoredImage> {
        let sequence = self.sequences.get(image_id)?;
        let stored = self.stored.get_mut(sequence)?;
        (stored.owner == owner).then_some(stored)
    }

    /// Returns the AMI with an ID.
    pub(crate) fn get(&self, image_id: &str) -> Option<&StoredImage> {
        self.stored.get(self.sequences.get(image_id)?)
    }

    /// Returns the AMIs from a sequence number on, in order, with their sequence numbers.
    pub(crate) fn from(&self, sequence: u64) -> impl Iterator<Item = (u64, &StoredImage)> {
        let rest = self.stored.range(sequence..);
        rest.map(|(sequence, stored)| (*sequence, stored))
    }
}

impl StoredImage {
    /// Returns when the AMI was last launched, as far as EC2 shows it at `now`.
    pub(crate) fn last_launched_time(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let shown = self.launches.iter().filter(|it| it.shown_from <= now);
        let latest = shown.map(|launch| launch.launched_at).max();
        latest.max(self.image.last_launched_time)
    }

    /// Returns whether an account may launch the AMI.
    pub(crate) fn is_available_to(&self, account: &str) -> bool {
        self.owner == account
            || self.image.public
            || self.image.shared_with.iter().any(|it| it == account)
    }
}

impl World {
    /// Puts an AMI into a Region, owned by an account; one with the same ID is replaced.
    pub fn put_image(&self, account: &str, region: &str, image: Image) {
        self.lock().images(region).put(account, image);
    }

    /// Returns the AMIs that an account owns in a Region, deregistered ones included, in order.
    pub fn images(&self, account: &str, region: &str) -> Vec<Image> {
        let now = self.now();
        let mut state = self.lock();
        let owned = state.images(region).from(0);
        owned
            .filter(|(_, stored)| stored.owner == account)
            .map(|(_, stored)| Image {
                last_launched_time: stored.last_launched_time(now),
                ..stored.image.clone()
            })
            .collect()
    }

    /// Deregisters an AMI: EC2 lists it no more. Returns whether the account owns it.
    pub fn deregister_image(&self, account: &str, region: &str, image_id: &str) -> bool {
        self.change_image(account, region, image_id, |stored| {
            stored.image.state = Some("deregistered".to_owned());
        })
    }

    /// Disables an AMI, which takes away its launch permissions. Returns whether the account owns it.
    pub fn disable_image(&self, account: &str, region: &str, image_id: &str) -> bool {
        self.change_image(account, region, image_id, |stored| {
            stored.image.state = Some("disabled".to_owned());
            stored.image.public = false;
            stored.image.shared_with.clear();
        })
    }

    /// Makes an AMI `available` again, without its former launch permissions. Returns whether the
    /// account owns it.
    pub fn enable_image(&self, account: &str, region: &str, image_id: &str) -> bool {
        self.change_image(account, region, image_id, |stored| {
            stored.image.state = Some("available".to_owned());
        })
    }

    /// Launches an AMI now, which EC2 shows after the launch lag. Returns whether the account owns
    /// it.
    pub fn launch_image(&self, account: &str, region: &str, image_id: &str) -> bool {
        let launched_at = self.now();
        let shown_from = launched_at.saturating_add(self.lock().launch_lag);
        self.change_image(account, region, image_id, |stored| {
            stored.launches.push(Launch {
                launched_at,
                shown_from,
            });
        })
    }

    /// Removes an AMI, as if it had never existed. Returns whether the account owned it.
    pub fn remove_image(&self, account: &str, region: &str, image_id: &str) -> bool {
        self.lock().images(region).remove(account, image_id)
    }

    /// Sets how long EC2 takes to show a launch in `lastLaunchedTime`; the default is a day.
    ///
    /// Applies to launches from now on.
    pub fn set_launch_lag(&self, lag: Duration) {
        self.lock().launch_lag = lag;
    }

    fn change_image(
        &self,
        account: &str,
        region: &str,
        image_id: &str,
        change: impl FnOnce(&mut StoredImage),
    ) -> bool {
        let mut state = self.lock();
        let stored = state.images(region).of_owner(account, image_id);
        stored.map(change).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const ACCOUNT: &str = "111122223333";
    const REGION: &str = "us-east-1";
    const ID: &str = "ami-0abcdef1234567890";

    fn noon() -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_779) + Duration::hours(12)
    }

    #[test]
    fn a_launch_is_shown_after_the_lag_and_only_the_latest_counts() {
        let clock = Clock::fixed(noon());
        let world = World::builder().clock(clock.clone()).build();
        let last_launched = || world.images(ACCOUNT, REGION)[0].last_launched_time;
        let earlier = noon() - Duration::days(90);
        let image = Image::new(ID).last_launched_at(earlier);
        world.put_image(ACCOUNT, REGION, image);

        assert!(world.launch_image(ACCOUNT, REGION, ID));
        assert_eq!(last_launched(), Some(earlier));
        clock.advance(Duration::hours(23));
        assert_eq!(last_launched(), Some(earlier));
        clock.advance(Duration::HOUR);
        assert_eq!(last_launched(), Some(noon()));

        world.set_launch_lag(Duration::ZERO);
        assert!(world.launch_image(ACCOUNT, REGION, ID));
        assert_eq!(last_launched(), Some(noon() + Duration::DAY));
    }

    #[test]
    fn disabling_takes_away_the_permissions_and_enabling_does_not_return_them() {
        let world = World::builder().build();
        let shared = Image::new(ID).public().shared_with("444455556666");
        world.put_image(ACCOUNT, REGION, shared);
        assert!(world.disable_image(ACCOUNT, REGION, ID));
        assert_eq!(
            world.images(ACCOUNT, REGION),
            [Image::new(ID).in_state("disabled")]
        );
        assert!(world.enable_image(ACCOUNT, REGION, ID));
        assert_eq!(world.images(ACCOUNT, REGION), [Image::new(ID)]);
    }

    #[test]
    fn only_the_owner_changes_an_image_in_its_region() {
        let world = World::builder().build();
        world.put_image(ACCOUNT, REGION, Image::new(ID));
        assert!(!world.deregister_image("444455556666", REGION, ID));
        assert!(!world.launch_image(ACCOUNT, "eu-west-1", ID));
        assert!(!world.remove_image("444455556666", REGION, ID));
        assert!(world.remove_image(ACCOUNT, REGION, ID));
        assert_eq!(world.images(ACCOUNT, REGION), []);
    }
}
