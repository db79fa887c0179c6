//! Forms with files (`multipart/form-data`), with limits and refusals that are problems.
//!
//! The whole body is bounded by `body_limit` and `body_timeout`. This bounds the number of fields,
//! and each field where it is read into memory.

use axum::extract::{FromRequest, Request, multipart};
use bytes::Bytes;
use chassis_core::Error;

use crate::{Problem, edge::body_over, limit::limit_of};

/// Most fields of a form.
pub const MAX_FIELDS: usize = 64;

/// A form, read field by field.
#[derive(Debug)]
pub struct Multipart {
    form: multipart::Multipart,
    fields: usize,
}

impl<S: Send + Sync> FromRequest<S> for Multipart {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Multipart, Problem> {
        let form = multipart::Multipart::from_request(request, state).await.map_err(|error| {
            let message = "the body must be a form: content-type: multipart/form-data";
            Problem::new(
                Error::invalid_argument("UNSUPPORTED_MEDIA_TYPE", message).with_source(error),
            )
            .with_status(http::StatusCode::UNSUPPORTED_MEDIA_TYPE)
        })?;
        Ok(Multipart { form, fields: 0 })
    }
}

impl Multipart {
    /// The next field, or `None` after the last. Dropping the future loses the field.
    ///
    /// # Errors
    /// 400 `MALFORMED_FORM`; 400 `TOO_MANY_FIELDS` after [`MAX_FIELDS`]; 408 and 413 of the body.
    pub async fn next(&mut self) -> Result<Option<Field<'_>>, Problem> {
        let Some(field) = self.form.next_field().await.map_err(refused)? else { return Ok(None) };
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            let message = "the form has more fields than allowed here";
            return Err(Error::invalid_argument("TOO_MANY_FIELDS", message).into());
        }
        Ok(Some(Field { field }))
    }
}

/// A field of a form.
#[derive(Debug)]
pub struct Field<'a> {
    field: multipart::Field<'a>,
}

impl Field<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// The name of the file as the caller says it: any text, no path to write to.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// The media type as the caller says it.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.field.content_type()
    }

    /// The next piece, or `None` at its end. Dropping the future loses nothing that was given.
    ///
    /// # Errors
    /// As [`Multipart::next`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        self.field.chunk().await.map_err(refused)
    }

    /// All of it, if it is at most so many bytes. Dropping the future loses what was read.
    ///
    /// # Errors
    /// 413 `FIELD_TOO_LARGE`, and those of [`Multipart::next`].
    pub async fn bytes(mut self, most: usize) -> Result<Vec<u8>, Problem> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > most {
                let name = self.name().unwrap_or_default().to_owned();
                let message = format!("a field of the form is larger than {most} bytes");
                let error = Error::invalid_argument("FIELD_TOO_LARGE", message)
                    .with_field(name, "is too large");
                return Err(Problem::new(error).with_status(http::StatusCode::PAYLOAD_TOO_LARGE));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

fn refused(error: multipart::MultipartError) -> Problem {
    match limit_of(&error) {
        Some(limit) => body_over(limit),
        None => {
            let message = "the body is not a whole form";
            Error::invalid_argument("MALFORMED_FORM", message).with_source(error).into()
        }
    }
}
