//! Settings that can be switched off: in a file, `"off"` stands for `None`.
//!
//! Formats such as TOML have no null, and a field that is left out means its default, which need not be `None`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const OFF: &str = "off";

#[allow(dead_code, reason = "used by the families, each behind its feature")]
#[allow(clippy::ref_option, reason = "the signature that serde calls")]
pub(crate) fn serialize<T: Serialize, S: Serializer>(setting: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match setting {
        Some(setting) => setting.serialize(serializer),
        None => serializer.serialize_str(OFF),
    }
}

#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(OrOff(PhantomData))
}

struct OrOff<T>(PhantomData<T>);

/// Hands every kind of value on to the setting's own type, whose errors say what is expected.
macro_rules! hand_on {
    ($($method:ident: $value:ty),*) => {
        $(fn $method<E: de::Error>(self, value: $value) -> Result<Option<T>, E> {
            T::deserialize(value.into_deserializer()).map(Some)
        })*
    };
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for OrOff<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting or \"off\"")
    }

    hand_on!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64);

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<T>, E> {
        if text == OFF { Ok(None) } else { T::deserialize(text.into_deserializer()).map(Some) }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_none<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Option<T>, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(seq)).map(Some)
    }
}
