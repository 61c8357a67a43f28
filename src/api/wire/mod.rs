//! What is on the wire? The bodies of requests and replies, and how a body becomes one: what is wrong
//! with it is said with the field's name.

pub mod completions;
pub mod contexts;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;

/// Whether a field that is null is as one that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// It is, as OpenAI has it.
    AreAbsent,
    /// It says something.
    Count,
}

/// Reads a body of JSON.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse<T: DeserializeOwned>(body: &[u8], nulls: Nulls) -> Result<T, ApiError> {
    let mut value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad("invalid_json", format!("The body is not JSON that can be read: {error}."))
    })?;
    if !value.is_object() {
        return Err(ApiError::bad("invalid_json", "The body must be a JSON object."));
    }
    if nulls == Nulls::AreAbsent {
        drop_nulls(&mut value);
        if let Some(messages) = value.get_mut("messages").and_then(Value::as_array_mut) {
            messages.iter_mut().for_each(drop_nulls);
        }
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, message) = (error.path().to_string(), error.inner().to_string());
        let within = |field: &str| match path.as_str() {
            "." | "" => field.to_owned(),
            path => format!("{}.{field}", path.trim_end_matches(&format!(".{field}"))),
        };
        match quoted_after(&message, "unknown field `") {
            Some(field) if path.ends_with(field) => ApiError::unsupported(&path),
            Some(field) => ApiError::unsupported(&within(field)),
            None => match quoted_after(&message, "missing field `") {
                Some(field) => ApiError::invalid(&within(field), format!("`{field}` is required.")),
                None => ApiError::invalid(&path, format!("`{path}` is not right: {message}.")),
            },
        }
    })
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
    }
}

fn quoted_after<'a>(message: &'a str, words: &str) -> Option<&'a str> {
    message.strip_prefix(words)?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::completions::ChatRequest;
    use super::*;

    fn param(body: &str) -> (Option<String>, &'static str) {
        let error = parse::<ChatRequest>(body.as_bytes(), Nulls::AreAbsent).unwrap_err();
        (error.body.param, error.body.code.unwrap())
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = r#"{"role": "user", "content": "x"}"#;
        let cases = [
            (format!(r#"{{"messages": [{message}], "tools": []}}"#), "tools", "unsupported_field"),
            (format!(r#"{{"messages": [{message}], "n": "two"}}"#), "n", "invalid_value"),
            (r#"{"messages": 3}"#.to_owned(), "messages", "invalid_value"),
            (r#"{"model": "x"}"#.to_owned(), "messages", "invalid_value"),
            (
                r#"{"messages": [{"role": "king", "content": "x"}]}"#.to_owned(),
                "messages[0].role",
                "invalid_value",
            ),
            (
                r#"{"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}"#.to_owned(),
                "messages[0].tool_calls",
                "unsupported_field",
            ),
        ];
        for (body, field, code) in cases {
            assert_eq!(param(&body), (Some(field.to_owned()), code), "{body}");
        }
        assert_eq!(param("{"), (None, "invalid_json"));
        assert_eq!(param("[]"), (None, "invalid_json"));
    }

    #[test]
    fn what_is_null_is_as_if_it_were_not_there() {
        let body = r#"{"messages": [{"role": "user", "content": "x", "tool_calls": null}],
            "tools": null, "temperature": null}"#;
        let request: ChatRequest = parse(body.as_bytes(), Nulls::AreAbsent).unwrap();
        assert_eq!(request.temperature, None);
    }
}
