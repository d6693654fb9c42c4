//! Durations in configuration files: text with units, such as `"250ms"`, `"1m 30s"` or `"2h"`.
//!
//! A bare number is refused: it would leave the unit to the reader.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| D::Error::custom(format!("`{text}` is no duration such as \"250ms\" or \"2s\": {error}")))
}

/// The same for `Option<Duration>`.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    #[allow(dead_code, reason = "used by the families, each behind its feature")]
    #[allow(clippy::ref_option, reason = "the signature that serde calls")]
    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    #[allow(dead_code, reason = "used by the families, each behind its feature")]
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "super")] Duration);
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|Wrapped(duration)| duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Settings {
        #[serde(with = "super")]
        wait: Duration,
        #[serde(default, with = "super::option")]
        limit: Option<Duration>,
    }

    #[test]
    fn durations_are_read_and_written_with_units() {
        let read: Settings = toml::from_str("wait = \"250ms\"\nlimit = \"1m 30s\"").unwrap();
        assert_eq!(read, Settings { wait: Duration::from_millis(250), limit: Some(Duration::from_secs(90)) });
        let written = toml::to_string(&read).unwrap();
        assert_eq!(toml::from_str::<Settings>(&written).unwrap(), read);
        assert_eq!(toml::from_str::<Settings>("wait = \"1s\"").unwrap().limit, None);
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_the_text() {
        let error = toml::from_str::<Settings>("wait = \"250\"").unwrap_err().to_string();
        assert!(error.contains("`250` is no duration"), "{error}");
        assert!(toml::from_str::<Settings>("wait = 250").is_err());
    }
}
