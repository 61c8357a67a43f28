//! How do programs and people learn what the service answers? From an OpenAPI document, and a page made
//! of it.

use std::fmt::Write as _;

use axum::Json;
use axum::response::Html;
use serde_json::Value;
use utoipa::OpenApi;

use super::{completions, contexts, error, ingest, metrics, others, transfer, wire};

/// The service's API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "mneme",
        description = "A memory for language models, far longer than their context window. docs/api.md \
                       says more of each field."
    ),
    paths(
        completions::chat,
        completions::complete,
        ingest::create,
        contexts::list,
        contexts::show,
        contexts::change,
        contexts::delete,
        ingest::append,
        contexts::fork,
        contexts::rewind,
        contexts::text,
        transfer::export,
        transfer::import,
        others::models,
        others::model,
        others::tokenize,
        others::health,
        others::ready,
        metrics::metrics,
    ),
    components(schemas(
        error::ErrorReply,
        error::ErrorBody,
        wire::completions::ChatRequest,
        wire::completions::CompletionRequest,
        wire::completions::Evidence,
        wire::completions::Usage,
        wire::contexts::ContextObject,
        wire::contexts::ReadingProgress,
    ))
)]
struct Api;

/// `GET /openapi.json`
pub async fn openapi() -> Json<Value> {
    Json(document())
}

/// `GET /docs`
pub async fn docs() -> Html<String> {
    Html(page(&document()))
}

/// The OpenAPI document.
pub fn document() -> Value {
    serde_json::to_value(Api::openapi()).expect("because the document is plain data")
}

/// A page without scripts: each operation with its fields.
fn page(document: &Value) -> String {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>mneme: API</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"stylesheet\" href=\"page/page.css\"><main><h1>API</h1>\
         <p>For programs: <a href=\"openapi.json\">openapi.json</a>.</p>",
    );
    let operations = document["paths"].as_object().into_iter().flatten();
    for (path, methods) in operations {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let method = method.to_uppercase();
            let _ = write!(html, "<h2><code>{method} {}</code></h2>", escaped(path));
            let summary = operation["summary"].as_str().unwrap_or_default();
            let _ = write!(html, "<p>{}</p>", escaped(summary));
            fields(&mut html, document, operation);
        }
    }
    html + "</main></html>"
}

fn fields(html: &mut String, document: &Value, operation: &Value) {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    let Some(name) = schema.as_str().and_then(|it| it.rsplit('/').next()) else { return };
    let properties = &document["components"]["schemas"][name]["properties"];
    html.push_str("<dl>");
    for (field, of) in properties.as_object().into_iter().flatten() {
        let means = of["description"].as_str().unwrap_or_default();
        let _ = write!(html, "<dt><code>{}</code></dt><dd>{}</dd>", escaped(field), escaped(means));
    }
    html.push_str("</dl>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_every_described_one_is_a_route() {
        let document = document();
        let mut described: Vec<String> = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                described.push(format!("{} {path}", method.to_uppercase()));
            }
        }
        described.sort_unstable();
        let mut routed: Vec<String> = super::super::ROUTES
            .iter()
            .filter(|(_, path)| !super::super::UNDESCRIBED.contains(path))
            .map(|(method, path)| format!("{method} {path}"))
            .collect();
        routed.sort_unstable();
        assert_eq!(described, routed);
        assert!(page(&document).contains("POST /v1/chat/completions"));
    }
}
