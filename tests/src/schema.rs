//! Checks JSON against the schemas in `docs/schema/`.
//!
//! It knows the part of JSON Schema that they use and panics at any other keyword: a rule that is not understood must not
//! pass for one that holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Map, Value};

/// The schemas of a folder, by file name.
#[derive(Debug)]
pub struct Schemas(BTreeMap<String, Value>);

/// Keywords that say nothing about a value.
const REMARKS: [&str; 8] =
    ["$schema", "$id", "$comment", "$defs", "title", "description", "examples", "default"];

impl Schemas {
    /// Reads every `*.json` of `dir`.
    ///
    /// # Panics
    ///
    /// When there is none, or one is not JSON.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        let mut schemas = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path).expect("a schema");
                let schema = serde_json::from_str(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let name =
                    path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
                schemas.insert(name, schema);
            }
        }
        assert!(!schemas.is_empty(), "no schema in {}", dir.display());
        Self(schemas)
    }

    /// Lists the file names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Lists how `value` differs from the schema in the file `name`.
    ///
    /// # Panics
    ///
    /// When there is no such schema, or it says what is not understood here.
    #[must_use]
    pub fn complaints(&self, name: &str, value: &Value) -> Vec<String> {
        let mut complaints = Vec::new();
        let at = At { schemas: self, file: name };
        at.check(at.root(), value, "", &mut complaints);
        complaints
    }

    /// Fails unless `value` is as the schema in the file `name` says.
    ///
    /// # Panics
    ///
    /// Then.
    #[track_caller]
    pub fn assert(&self, name: &str, value: &Value) {
        let complaints = self.complaints(name, value);
        assert!(complaints.is_empty(), "{name}: {}\n{value:#}", complaints.join("; "));
    }
}

/// The schema file that references start from.
#[derive(Clone, Copy)]
struct At<'a> {
    schemas: &'a Schemas,
    file: &'a str,
}

impl<'a> At<'a> {
    fn root(self) -> &'a Value {
        self.schemas.0.get(self.file).unwrap_or_else(|| panic!("there is no schema {}", self.file))
    }

    fn check(self, schema: &Value, value: &Value, path: &str, complaints: &mut Vec<String>) {
        let rules = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return complaints.push(format!("{path} must not be there")),
            Value::Object(rules) => rules,
            _ => panic!("{}: {schema} is no schema", self.file),
        };
        for (keyword, rule) in rules {
            self.check_rule(keyword, rule, rules, value, path, complaints);
        }
    }

    fn check_rule(
        self,
        keyword: &str,
        rule: &Value,
        rules: &Map<String, Value>,
        value: &Value,
        path: &str,
        complaints: &mut Vec<String>,
    ) {
        match keyword {
            "$ref" => {
                let (at, schema) = self.resolve(rule.as_str().expect("a reference"));
                at.check(schema, value, path, complaints);
            }
            "type" => {
                let fits = |kind: &Value| is_of(value, kind.as_str().expect("a type"));
                let fits =
                    rule.as_array().map_or_else(|| fits(rule), |kinds| kinds.iter().any(fits));
                require(fits, || format!("{path} is {value}, not {rule}"), complaints);
            }
            "const" => {
                require(rule == value, || format!("{path} is {value}, not {rule}"), complaints)
            }
            "enum" => {
                let known = rule.as_array().expect("a list of values").contains(value);
                require(known, || format!("{path} is {value}, none of {rule}"), complaints);
            }
            "oneOf" | "anyOf" => self.check_choice(keyword, rule, value, path, complaints),
            "allOf" => {
                for part in rule.as_array().expect("a list of schemas") {
                    self.check(part, value, path, complaints);
                }
            }
            "required" | "properties" | "additionalProperties" => {
                if let Value::Object(members) = value {
                    self.check_members(keyword, rule, rules, members, path, complaints);
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(rule, item, &format!("{path}/{index}"), complaints);
                }
            }
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minimum" | "maximum"
            | "format" | "pattern" | "contentEncoding" => {
                check_simple(keyword, rule, value, path, complaints);
            }
            "not" => {
                let mut differences = Vec::new();
                self.check(rule, value, path, &mut differences);
                require(
                    !differences.is_empty(),
                    || format!("{path} is {value}, which is not to be"),
                    complaints,
                );
            }
            remark if REMARKS.contains(&remark) => {}
            other => panic!("{}: the keyword {other} is not understood", self.file),
        }
    }

    fn check_choice(
        self,
        keyword: &str,
        rule: &Value,
        value: &Value,
        path: &str,
        complaints: &mut Vec<String>,
    ) {
        let mut why = Vec::new();
        let mut fitting = 0;
        for choice in rule.as_array().expect("a list of schemas") {
            let mut differences = Vec::new();
            self.check(choice, value, path, &mut differences);
            if differences.is_empty() {
                fitting += 1;
            }
            why.extend(differences);
        }
        let enough = if keyword == "oneOf" { fitting == 1 } else { fitting > 0 };
        require(
            enough,
            || format!("{path} fits {fitting} of {keyword} ({})", why.join(", ")),
            complaints,
        );
    }

    fn check_members(
        self,
        keyword: &str,
        rule: &Value,
        rules: &Map<String, Value>,
        members: &Map<String, Value>,
        path: &str,
        complaints: &mut Vec<String>,
    ) {
        match keyword {
            "required" => {
                for name in
                    rule.as_array().expect("a list of names").iter().filter_map(Value::as_str)
                {
                    require(
                        members.contains_key(name),
                        || format!("{path}/{name} is missing"),
                        complaints,
                    );
                }
            }
            "properties" => {
                for (name, schema) in rule.as_object().expect("schemas by name") {
                    if let Some(member) = members.get(name) {
                        self.check(schema, member, &format!("{path}/{name}"), complaints);
                    }
                }
            }
            _ => {
                let named = rules.get("properties").and_then(Value::as_object);
                for (name, member) in members {
                    if !named.is_some_and(|named| named.contains_key(name)) {
                        self.check(rule, member, &format!("{path}/{name}"), complaints);
                    }
                }
            }
        }
    }

    /// Follows `file.json`, `#/$defs/name` or both.
    fn resolve(self, reference: &'a str) -> (At<'a>, &'a Value) {
        let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let at = if file.is_empty() { self } else { At { file, ..self } };
        let schema = at.root().pointer(pointer);
        (at, schema.unwrap_or_else(|| panic!("{}: {reference} leads nowhere", self.file)))
    }
}

/// Checks what concerns one value that is no composite of others.
fn check_simple(
    keyword: &str,
    rule: &Value,
    value: &Value,
    path: &str,
    complaints: &mut Vec<String>,
) {
    let size = match keyword {
        "minItems" | "maxItems" => value.as_array().map(Vec::len).map(length),
        "minLength" | "maxLength" => value.as_str().map(|text| length(text.chars().count())),
        "minimum" | "maximum" => value.as_f64(),
        "pattern" => {
            let pattern = regex::Regex::new(rule.as_str().expect("a pattern")).expect("a pattern");
            let holds = value.as_str().is_none_or(|text| pattern.is_match(text));
            return require(holds, || format!("{path} is {value}, not like {rule}"), complaints);
        }
        _ => {
            let format = rule.as_str().expect("a format");
            let holds = value.as_str().is_none_or(|text| has_format(text, format));
            return require(holds, || format!("{path} is {value}, no {format}"), complaints);
        }
    };
    let bound = rule.as_f64().expect("a bound");
    let holds = size
        .is_none_or(|size| if keyword.starts_with("min") { size >= bound } else { size <= bound });
    require(holds, || format!("{path} is {value}, {keyword} is {rule}"), complaints);
}

fn require(holds: bool, complaint: impl FnOnce() -> String, complaints: &mut Vec<String>) {
    if !holds {
        complaints.push(complaint());
    }
}

#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
fn length(length: usize) -> f64 {
    length as f64
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the type {other} is not understood"),
    }
}

fn has_format(text: &str, format: &str) -> bool {
    // A digit for each 0, the sign itself for any other.
    let like = |shape: &str| {
        text.len() == shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(c, s)| if s == b'0' { c.is_ascii_digit() } else { c == s })
    };
    match format {
        // As the command line prints it: UTC with milliseconds.
        "date-time" => like("0000-00-00T00:00:00.000Z"),
        "uuid" => text.parse::<uuid::Uuid>().is_ok(),
        "base64" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        other => panic!("the format {other} is not understood"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(schema: Value, good: &[Value], bad: &[Value]) {
        let schemas = Schemas(BTreeMap::from([("a.json".to_owned(), schema)]));
        for value in good {
            schemas.assert("a.json", value);
        }
        for value in bad {
            assert!(!schemas.complaints("a.json", value).is_empty(), "{value} passed");
        }
    }

    #[test]
    fn types_and_values_are_checked() {
        check(
            json!({"type": "integer"}),
            &[json!(1), json!(-1)],
            &[json!(1.5), json!("1"), json!(null)],
        );
        check(json!({"type": ["string", "null"]}), &[json!("a"), json!(null)], &[json!(1)]);
        check(json!({"enum": ["a", 1]}), &[json!("a"), json!(1)], &[json!("b")]);
        check(json!({"const": 1}), &[json!(1)], &[json!(2)]);
        check(json!({"minimum": 1, "maximum": 2}), &[json!(1), json!(2)], &[json!(0), json!(3)]);
        check(json!({"minLength": 1, "maxLength": 2}), &[json!("ä")], &[json!(""), json!("abc")]);
        check(json!({"pattern": "^[ab]+$"}), &[json!("ab"), json!(1)], &[json!("abc")]);
        check(json!({"not": {"const": 1}}), &[json!(2)], &[json!(1)]);
        check(json!({"contentEncoding": "base64"}), &[json!("aGk=")], &[json!("a")]);
        check(json!({"minItems": 1}), &[json!([1])], &[json!([])]);
    }

    #[test]
    fn members_are_checked() {
        let schema = json!({"required": ["a"], "properties": {"a": {"type": "string"}}, "additionalProperties": false});
        check(
            schema,
            &[json!({"a": "x"})],
            &[json!({}), json!({"a": 1}), json!({"a": "x", "b": 1})],
        );
        check(json!({"items": {"type": "string"}}), &[json!([]), json!(["a"])], &[json!(["a", 1])]);
    }

    #[test]
    fn choices_are_checked() {
        let either = json!([{"type": "string"}, {"const": "a"}]);
        check(json!({"oneOf": either}), &[json!("b")], &[json!("a"), json!(1)]);
        check(json!({"anyOf": either}), &[json!("b"), json!("a")], &[json!(1)]);
        check(json!({"allOf": either}), &[json!("a")], &[json!("b")]);
    }

    #[test]
    fn formats_are_checked() {
        let time = json!("2026-01-02T03:04:05.678Z");
        check(
            json!({"format": "date-time"}),
            &[time],
            &[json!("2026-01-02T03:04:05Z"), json!("now")],
        );
        check(
            json!({"format": "uuid"}),
            &[json!("0190163d-8694-739b-aea5-966c26f8ad91")],
            &[json!("a-12345678")],
        );
    }

    #[test]
    fn references_are_followed_within_a_file_and_between_files() {
        let schemas = Schemas(BTreeMap::from([
            ("a.json".to_owned(), json!({"$ref": "b.json#/$defs/n"})),
            (
                "b.json".to_owned(),
                json!({"$defs": {"n": {"$ref": "#/$defs/m"}, "m": {"type": "null"}}}),
            ),
        ]));
        schemas.assert("a.json", &json!(null));
        assert!(!schemas.complaints("a.json", &json!(1)).is_empty());
    }

    #[test]
    #[should_panic(expected = "not understood")]
    fn a_keyword_that_is_not_understood_is_no_rule_that_holds() {
        check(json!({"dependentRequired": {}}), &[json!(1)], &[]);
    }
}
