//! Units as people write them: `"25ms"`, `"5s"`, `"12h"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// For `#[serde(deserialize_with)]`: a duration as text.
pub(crate) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(from)?)
}

/// The same where there may be none.
pub(crate) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// The same for a list of durations.
pub(crate) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
    Vec::<String>::deserialize(from)?.iter().map(|text| parse(text)).collect()
}

/// The same for a matrix of durations.
pub(crate) fn matrix<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<Duration>>, D::Error> {
    let rows = Vec::<Vec<String>>::deserialize(from)?;
    rows.iter().map(|row| row.iter().map(|text| parse(text)).collect()).collect()
}

fn parse<E: Error>(text: &str) -> Result<Duration, E> {
    humantime::parse_duration(text)
        .map_err(|error| E::custom(format!("{text:?} is not a duration like \"25ms\": {error}")))
}
