//! Durations in configuration files: text with units, such as `"250ms"`, `"1m 30s"` or `"2h"`.
//!
//! A bare number is refused: it would leave the unit to the reader.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct WithUnit;

    impl Visitor<'_> for WithUnit {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with a unit, such as 500ms")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text)
                .map_err(|error| E::custom(format!("`{text}` is not a duration with a unit, such as 500ms: {error}")))
        }
    }
    deserializer.deserialize_str(WithUnit)
}

/// `Option<Duration>`; `"off"` is `None`.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};
    use crate::cores::serde_off;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct WithUnit(#[serde(with = "super")] Duration);

    #[allow(dead_code, reason = "used by the families, each behind its feature")]
    #[allow(clippy::ref_option, reason = "the signature that serde calls")]
    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        serde_off::serialize(&duration.map(WithUnit), serializer)
    }

    #[allow(dead_code, reason = "used by the families, each behind its feature")]
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(serde_off::deserialize(deserializer)?.map(|WithUnit(duration)| duration))
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
        assert!(error.contains("`250` is not a duration with a unit, such as 500ms"), "{error}");
        for field in ["wait = 250", "wait = \"1s\"\nlimit = 500"] {
            let error = toml::from_str::<Settings>(field).unwrap_err().to_string();
            assert!(error.contains("expected a duration with a unit, such as 500ms"), "{error}");
        }
        assert_eq!(toml::from_str::<Settings>("wait = \"1s\"\nlimit = \"off\"").unwrap().limit, None);
    }
}
