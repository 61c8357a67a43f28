//! How does a document arrive? In JSON, or as a file of a form.

use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;

use super::error::ApiError;
use super::state::Service;
use super::wire::contexts::CreateContext;

/// What arrived.
pub enum Upload {
    /// A body of JSON.
    Json(Bytes),
    /// A form, read.
    Form(Box<CreateContext>),
}

impl FromRequest<Service> for Upload {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Service) -> Result<Self, ApiError> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let is_form = |it: &str| it.to_ascii_lowercase().starts_with("multipart/form-data");
        if !content_type.is_some_and(is_form) {
            let body = Bytes::from_request(request, state).await;
            let body = body.map_err(|error| ApiError::bad("invalid_body", error.body_text()))?;
            return Ok(Self::Json(body));
        }
        let form = Multipart::from_request(request, state).await;
        let form = form.map_err(|error| ApiError::bad("invalid_value", error.body_text()))?;
        Ok(Self::Form(Box::new(read(form).await?)))
    }
}

async fn read(mut form: Multipart) -> Result<CreateContext, ApiError> {
    let wrong = |error: MultipartError| {
        let message = format!("The form cannot be read: {}.", error.body_text());
        ApiError::refused(error.status(), "invalid_form", message)
    };
    let mut request = CreateContext::default();
    while let Some(field) = form.next_field().await.map_err(wrong)? {
        let name = field.name().unwrap_or_default().to_owned();
        let file = field.file_name().map(str::to_owned);
        let bytes = field.bytes().await.map_err(wrong)?;
        let text = String::from_utf8(bytes.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            ApiError::invalid(
                &name,
                format!("`{name}` is not UTF-8: byte {at} begins no character."),
            )
        })?;
        let bad = |what: &str| ApiError::invalid(&name, format!("`{name}` must be {what}."));
        match name.as_str() {
            "file" => {
                request.text = Some(text);
                if let (Some(file), None) = (file, &request.metadata) {
                    let named = [("file".to_owned(), file.into())];
                    request.metadata = Some(named.into_iter().collect());
                }
            }
            "text" => request.text = Some(text),
            "name" => request.name = Some(text),
            "model" => request.model = Some(text),
            "ttl" => request.ttl = Some(text.parse().map_err(|_| bad("a number of seconds"))?),
            "pinned" => request.pinned = Some(text.parse().map_err(|_| bad("true or false"))?),
            "stream" => request.stream = Some(text.parse().map_err(|_| bad("true or false"))?),
            "metadata" => {
                let metadata = serde_json::from_str(&text).map_err(|_| bad("a JSON object"))?;
                request.metadata = Some(metadata);
            }
            _ => return Err(ApiError::unsupported(&name)),
        }
    }
    Ok(request)
}
