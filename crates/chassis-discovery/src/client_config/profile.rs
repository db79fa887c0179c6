//! The profile of a client, as a configuration file names it.
//!
//! It chooses the defaults of all that stands beside it; see [`preset`].

use chassis_core::config::preset;
use chassis_resilience::Profile;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;

use super::ClientConfig;

pub(super) fn serialize<S: Serializer>(
    profile: &Profile,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let presets = Profile::ALL.into_iter().map(|it| (it.as_str(), ClientConfig::of(it)));
    preset::serialize(profile.as_str(), presets, serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Profile, D::Error> {
    let name = String::deserialize(deserializer)?;
    Profile::parse(&name).ok_or_else(|| {
        let allowed = Profile::ALL.map(Profile::as_str).join(", ");
        D::Error::custom(format!("`{name}` is no profile, allowed is {allowed}"))
    })
}
