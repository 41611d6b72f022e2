//! Includes and settings: how several tables become one.

use std::path::Path;

use toml::{Table, Value};

use super::error::FileError;

/// Files that may include each other in a chain.
const DEPTH_MAX: usize = 8;

/// Reads a file and what it includes. What is in a file wins over what it includes, and a
/// later include over an earlier one; tables are merged, everything else is replaced.
pub(crate) fn read(path: &Path, depth: usize) -> Result<Table, FileError> {
    if depth > DEPTH_MAX {
        return Err(FileError::Included { path: path.to_owned(), depth: DEPTH_MAX });
    }
    let text = std::fs::read_to_string(path)
        .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let mut table: Table = toml::from_str(&text).map_err(|error| FileError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim().to_owned(),
    })?;
    let included = match table.remove("include") {
        None => return Ok(table),
        Some(Value::Array(included)) => included,
        Some(_) => return Err(FileError::invalid("include", "must be a list of file names")),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut merged = Table::new();
    for name in included {
        let Value::String(name) = name else {
            return Err(FileError::invalid("include", "must be a list of file names"));
        };
        merge(&mut merged, read(&folder.join(name), depth + 1)?);
    }
    merge(&mut merged, table);
    Ok(merged)
}

fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Takes `a.b=c` apart. What is not a TOML value is a text.
pub(crate) fn parse_setting(setting: &str) -> Result<(String, Value), FileError> {
    let Some((path, value)) = setting.split_once('=') else {
        let reason = "write it as path=value, for example network.loss=0.1";
        return Err(FileError::Setting { setting: setting.to_owned(), reason });
    };
    let value = value.trim();
    let parsed = toml::from_str::<Table>(&format!("value = {value}"));
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    Ok((path.trim().to_owned(), value))
}

/// Puts a value at a dotted path, making tables on the way.
pub(crate) fn set(table: &mut Table, path: &str, value: Value) -> Result<(), FileError> {
    let refuse = |reason| FileError::Setting { setting: path.to_owned(), reason };
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    if first.is_empty() {
        return Err(refuse("a part of the path is empty"));
    }
    let Some(rest) = rest else {
        table.insert(first.to_owned(), value);
        return Ok(());
    };
    match table.entry(first).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => set(inner, rest, value),
        _ => Err(refuse("the path leads through a value that is no table")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        toml::from_str(text).expect("TOML")
    }

    #[test]
    fn what_is_over_wins_and_tables_are_merged() {
        let mut under = table("a = 1\n[t]\nx = 1\ny = [1, 2]");
        merge(&mut under, table("b = 2\n[t]\ny = [3]"));
        assert_eq!(under, table("a = 1\nb = 2\n[t]\nx = 1\ny = [3]"));
    }

    #[test]
    fn settings_are_toml_values_or_texts() {
        let read = |setting| parse_setting(setting).expect(setting).1;
        assert_eq!(read("a.b=0.5"), Value::Float(0.5));
        assert_eq!(read("a=[1, 2]"), Value::Array(vec![Value::Integer(1), Value::Integer(2)]));
        assert_eq!(read("a=25ms"), Value::String("25ms".into()));
        assert_eq!(read("a=\"25ms\""), Value::String("25ms".into()));
        assert!(parse_setting("a.b").is_err());
    }

    #[test]
    fn a_setting_makes_the_tables_on_its_way() {
        let mut under = table("a = 1");
        set(&mut under, "b.c.d", Value::Integer(2)).expect("a path");
        assert_eq!(under, table("a = 1\n[b.c]\nd = 2"));
        assert!(set(&mut under, "a.x", Value::Integer(2)).is_err());
        assert!(set(&mut under, "b..d", Value::Integer(2)).is_err());
    }
}
