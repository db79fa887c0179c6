//! Places that the environment names: `services__greeter__http__0=http://10.0.0.7:80`.
//!
//! The form in which .NET's hosts and Aspire hand over endpoints: service, name
//! of the endpoint (here: the protocol), and a number. Names of variables are
//! compared without regard to case, and `__` stands for the `:` of .NET's keys.
//!
//! Source: <https://learn.microsoft.com/dotnet/core/extensions/service-discovery>.

use std::collections::BTreeMap;
use std::ffi::OsString;

use chassis_core::Result;

use super::invalid;
use crate::Target;
use crate::dns::Location;

/// How many places one variable after the other may name for a target.
const MAX_PLACES: usize = 1_000;

/// The places that these variables name.
pub(super) fn places(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<Target, Vec<Location>>> {
    let mut numbered: BTreeMap<Target, BTreeMap<usize, Location>> = BTreeMap::new();
    for (name, value) in vars {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        let Some((target, number)) = parse_name(name) else { continue };
        if value.is_empty() {
            continue;
        }
        if number >= MAX_PLACES {
            return Err(invalid(format!(
                "environment variable {name}: the number is allowed from 0 to {}",
                MAX_PLACES - 1
            )));
        }
        let place = Location::parse(&format!("environment variable {name}"), authority(value))?;
        numbered.entry(target).or_default().insert(number, place);
    }
    let complete = numbered.into_iter();
    Ok(complete.map(|(target, places)| (target, places.into_values().collect())).collect())
}

fn parse_name(name: &str) -> Option<(Target, usize)> {
    let name = name.to_ascii_lowercase();
    let mut parts = name.strip_prefix("services__")?.split("__");
    let (service, protocol, number) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && !service.is_empty() && !protocol.is_empty();
    whole.then_some((Target::new(service, protocol), number.parse().ok()?))
}

/// `http://10.0.0.7:80/` and `10.0.0.7:80` are the same place.
fn authority(value: &str) -> &str {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<BTreeMap<Target, Vec<Location>>> {
        places(vars.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn variables_are_places_in_the_sequence_of_their_numbers() {
        let places = read(&[
            ("services__greeter__http__10", "http://10.0.0.3:80"),
            ("services__greeter__http__0", "http://10.0.0.1:80/"),
            ("SERVICES__GREETER__HTTP__2", "10.0.0.2:80"),
            ("services__greeter__grpc__0", "https://localhost:443"),
            ("services__empty__http__0", ""),
            ("services__greeter__http", "not a number"),
            ("services__greeter__http__x", "not a number"),
            ("PATH", "/bin"),
        ])
        .unwrap();
        let address = |text: &str| Location::Address(text.parse().unwrap());
        assert_eq!(places.len(), 2);
        assert_eq!(
            places[&Target::new("greeter", "http")],
            ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(address)
        );
        assert_eq!(places[&Target::new("greeter", "grpc")], [address("127.0.0.1:443")]);
    }

    #[test]
    fn what_is_wrong_names_the_variable() {
        for (name, value) in [
            ("services__greeter__http__0", "http://greeter"),
            ("services__greeter__http__1000", "10.0.0.1:80"),
        ] {
            let message = read(&[(name, value)]).unwrap_err().message().to_owned();
            assert!(message.starts_with(&format!("environment variable {name}: ")), "{message}");
        }
    }
}
