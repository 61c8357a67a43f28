//! What does a person see who opens the service in a browser? The page, whose files are part of the
//! program.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("page/", $name)))),*]
    };
}

/// Every file of the page, by name.
const FILES: &[(&str, &[u8])] = files![
    "actions.js",
    "answer.js",
    "api.js",
    "app.js",
    "context.js",
    "dialogs.js",
    "dom.js",
    "errors.js",
    "history.js",
    "home.js",
    "icon.svg",
    "incoming.js",
    "index.html",
    "ink.js",
    "library.js",
    "map.js",
    "page.css",
    "prose.js",
    "reader.js",
    "readings.js",
    "route.js",
    "shelf.js",
    "sse.js",
    "talk.js",
    "turn.js",
    "views.css",
    "words.js",
];

/// `GET /`
pub async fn index() -> Response {
    reply("index.html")
}

/// `GET /page/{name}`
pub async fn file(Path(name): Path<String>) -> Response {
    reply(&name)
}

fn reply(name: &str) -> Response {
    let Some((_, bytes)) = FILES.iter().find(|(known, _)| *known == name) else {
        return ApiError::not_found("not_found", format!("The page has no file {name:?}."))
            .into_response();
    };
    let headers = [
        (CONTENT_TYPE, content_type(name)),
        (CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, *bytes).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_part_of_the_program() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/page");
        let mut there: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort_unstable();
        let known: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(known, there);
    }
}
