//! JSON-RPC as agents speak it: one message a line, with or without `jsonrpc`, ids of any kind.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::json::{Look, line};

/// The most requests that may wait for their answer; beyond it the oldest is forgotten.
const MAX_WAITING: usize = 1024;

/// A message. Ids are JSON text, so that `0` and `"0"` differ.
#[derive(Debug, PartialEq)]
pub(crate) enum Rpc<'a> {
    /// Wants an answer.
    Request { id: String, method: &'a str, params: &'a Value },
    /// Wants none.
    Notification { method: &'a str, params: &'a Value },
    /// An answer.
    Result { id: String, result: &'a Value },
    /// A refusal.
    Error { id: String, error: &'a Value },
}

/// Says which message it is; `None` if it is none.
pub(crate) fn read(value: &Value) -> Option<Rpc<'_>> {
    let id = value.get("id").filter(|id| id.is_string() || id.is_number()).map(Value::to_string);
    let params = value.at("params");
    match (value.text("method"), id) {
        (Some(method), Some(id)) => Some(Rpc::Request { id, method, params }),
        (Some(method), None) => Some(Rpc::Notification { method, params }),
        (None, Some(id)) if value.has("error") => Some(Rpc::Error { id, error: value.at("error") }),
        (None, Some(id)) if value.get("result").is_some() => {
            Some(Rpc::Result { id, result: value.at("result") })
        }
        _ => None,
    }
}

/// How messages are written: app-server wants no `jsonrpc`, ACP does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) versioned: bool,
}

impl Dialect {
    fn line(self, mut message: Value) -> Vec<u8> {
        if self.versioned
            && let Value::Object(fields) = &mut message
        {
            fields.insert("jsonrpc".to_owned(), json!("2.0"));
        }
        line(&message)
    }

    /// Makes a request whose id is a string: the key of the message.
    pub(crate) fn request(self, id: &str, method: &str, params: &Value) -> Vec<u8> {
        self.line(json!({ "id": id, "method": method, "params": params }))
    }

    pub(crate) fn notification(self, method: &str, params: &Value) -> Vec<u8> {
        let message = if params.is_null() {
            json!({ "method": method })
        } else {
            json!({ "method": method, "params": params })
        };
        self.line(message)
    }

    /// Answers a request of the agent, whose id is JSON text.
    pub(crate) fn answer(self, id: &str, result: &Value) -> Vec<u8> {
        self.line(json!({ "id": id_value(id), "result": result }))
    }

    /// Refuses a request of the agent that we do not know.
    pub(crate) fn refuse(self, id: &str, method: &str) -> Vec<u8> {
        let message = format!("{method} is not supported");
        self.line(json!({ "id": id_value(id), "error": { "code": -32601, "message": message } }))
    }
}

fn id_value(id: &str) -> Value {
    serde_json::from_str(id).unwrap_or_else(|_| json!(id))
}

/// Requests that wait for their answer, by id.
#[derive(Clone, Debug)]
pub(crate) struct Waiting<T> {
    order: u64,
    by_id: BTreeMap<String, (u64, T)>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { order: 0, by_id: BTreeMap::new() }
    }
}

impl<T> Waiting<T> {
    pub(crate) fn insert(&mut self, id: String, what: T) {
        if self.by_id.len() >= MAX_WAITING {
            let oldest = self.by_id.iter().min_by_key(|(_, (order, _))| *order);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                self.by_id.remove(&id);
            }
        }
        self.order += 1;
        self.by_id.insert(id, (self.order, what));
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<T> {
        self.by_id.remove(id).map(|(_, what)| what)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&T> {
        self.by_id.get(id).map(|(_, what)| what)
    }

    /// Returns all in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &T)> {
        let mut all: Vec<_> = self.by_id.iter().collect();
        all.sort_by_key(|(_, (order, _))| *order);
        all.into_iter().map(|(id, (_, what))| (id, what))
    }

    /// Says whether one of them is such.
    pub(crate) fn any(&self, is: impl Fn(&T) -> bool) -> bool {
        self.by_id.values().any(|(_, what)| is(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_different_kinds_differ_and_zero_is_one() {
        let ask = json!({ "id": 0, "method": "m", "params": {} });
        let Some(Rpc::Request { id, .. }) = read(&ask) else { panic!("no request") };
        assert_eq!(id, "0");
        let ask = json!({ "id": "0", "method": "m" });
        let Some(Rpc::Request { id, .. }) = read(&ask) else { panic!("no request") };
        assert_eq!(id, "\"0\"");
        let back = Dialect { versioned: false }.answer(&id, &json!({}));
        assert_eq!(back, b"{\"id\":\"0\",\"result\":{}}\n");
    }

    #[test]
    fn a_null_result_is_an_answer_and_a_null_error_none() {
        let value = json!({ "id": 1, "result": null });
        assert!(matches!(read(&value), Some(Rpc::Result { .. })));
        let value = json!({ "id": 1, "result": {}, "error": null });
        assert!(matches!(read(&value), Some(Rpc::Result { .. })));
        assert_eq!(read(&json!({ "id": null, "result": {} })), None);
        assert_eq!(read(&json!({ "x": 1 })), None);
    }

    #[test]
    fn requests_nobody_answers_are_forgotten_at_last() {
        let mut waiting = Waiting::default();
        for id in 0..2000 {
            waiting.insert(id.to_string(), ());
        }
        assert_eq!(waiting.by_id.len(), MAX_WAITING);
        assert!(waiting.get("1999").is_some() && waiting.get("0").is_none());
    }
}
