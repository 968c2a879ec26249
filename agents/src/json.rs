//! JSON that may be anything: read leniently, with a limit on what it becomes in memory.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most values that one line becomes; a value more costs tens of bytes, and a line may hold millions.
const MAX_VALUES: usize = 200_000;

static NULL: Value = Value::Null;

/// Reads a line as a JSON object; `None` if it is none. Bytes that are not UTF-8 are replaced.
pub(crate) fn object(line: &[u8]) -> Option<Value> {
    let line = line.trim_ascii();
    if line.first() != Some(&b'{') {
        return None;
    }
    let text = String::from_utf8_lossy(line);
    let left = Cell::new(MAX_VALUES);
    let mut from = serde_json::Deserializer::from_str(&text);
    let value = Bounded(&left).deserialize(&mut from).ok()?;
    from.end().ok()?;
    value.is_object().then_some(value)
}

/// Returns a value as one line, newline included.
pub(crate) fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// Looks into values whose shape is not certain: what is missing or of another type is `None`, empty or null.
pub(crate) trait Look {
    /// Returns a field; null if it is not there.
    fn at(&self, key: &str) -> &Value;
    /// Returns a field that is a string.
    fn text(&self, key: &str) -> Option<&str>;
    /// Returns a field that is a string and not empty.
    fn filled(&self, key: &str) -> Option<String>;
    /// Returns the first of some fields that is a string and not empty.
    fn first(&self, keys: &[&str]) -> Option<String>;
    /// Returns a field that is a whole number, written as such or not.
    fn count(&self, key: &str) -> Option<u64>;
    /// Returns a field that is a whole number with a sign.
    fn signed(&self, key: &str) -> Option<i64>;
    /// Says whether a field is true.
    fn is(&self, key: &str) -> bool;
    /// Returns a field that is a list.
    fn list(&self, key: &str) -> &[Value];
    /// Says whether a field is there and not null.
    fn has(&self, key: &str) -> bool;
}

impl Look for Value {
    fn at(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.at(key).as_str()
    }

    fn filled(&self, key: &str) -> Option<String> {
        self.text(key).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn first(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.filled(key))
    }

    fn count(&self, key: &str) -> Option<u64> {
        whole(self.at(key))
    }

    fn signed(&self, key: &str) -> Option<i64> {
        self.at(key).as_i64()
    }

    fn is(&self, key: &str) -> bool {
        self.at(key).as_bool() == Some(true)
    }

    fn list(&self, key: &str) -> &[Value] {
        self.at(key).as_array().map_or(&[], Vec::as_slice)
    }

    fn has(&self, key: &str) -> bool {
        !self.at(key).is_null()
    }
}

/// Returns a number that is not negative, rounded to a whole one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked; a float of that size has no fraction to lose"
)]
pub(crate) fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        value.as_f64().filter(|float| (0.0..9e15).contains(float)).map(|float| float.round() as u64)
    })
}

/// Returns an amount of dollars in millionths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
pub(crate) fn micros(value: &Value) -> Option<u64> {
    let amount = value.as_f64().filter(|amount| (0.0..1e9).contains(amount))?;
    Some((amount * 1e6).round() as u64)
}

struct Bounded<'a>(&'a Cell<usize>);

impl Bounded<'_> {
    /// Takes one value from what is left.
    fn take(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        if self.take() {
            from.deserialize_any(self)
        } else {
            from.deserialize_ignored_any(IgnoredAny).map(|IgnoredAny| Value::Null)
        }
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while self.0.get() > 0 {
            let Some(item) = from.next_element_seed(Bounded(self.0))? else {
                return Ok(Value::Array(items));
            };
            items.push(item);
        }
        while from.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while self.0.get() > 0 {
            let Some(key) = from.next_key::<String>()? else {
                return Ok(Value::Object(fields));
            };
            fields.insert(key, from.next_value_seed(Bounded(self.0))?);
        }
        while from.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_it_is() {
        let text = r#"{"a":[1,-2,1.5,"x",null,true,{"b":{}}]}"#;
        assert_eq!(object(text.as_bytes()), serde_json::from_str(text).ok());
    }

    #[test]
    fn a_line_of_millions_of_values_does_not_become_millions() {
        let text = format!("{{\"a\":[{}0],\"b\":1}}", "0,".repeat(2_000_000));
        let value = object(text.as_bytes()).unwrap();
        assert!(value.list("a").len() <= MAX_VALUES);
    }

    #[test]
    fn what_is_no_object_is_none() {
        for text in ["", "  ", "[1]", "{", "{}x", "null", "{\"a\":", "debug: {}"] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(object(deep.as_bytes()), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let value = object(b"{\"a\":\"x\xffy\"}").unwrap();
        assert_eq!(value.text("a"), Some("x\u{fffd}y"));
    }
}
