//! Errors of a script say where in the DBA's text they are.

use crate::error::Error;
use crate::model::place::Place;
use crate::pg::error::ServerError;
use crate::pg::parser::Statement;

/// An error of the parser: its position is one in the script.
pub(super) fn of_syntax_error(error: Error, script: &str) -> Error {
    of_syntax_error_in("the script", error, script, 0)
}

/// The same of another text that somebody gave, by its name; `before`: characters of ours that the parser saw in front of it.
pub(super) fn of_syntax_error_in(what: &str, error: Error, text: &str, before: usize) -> Error {
    let Error::Server(e) = error else {
        return error;
    };
    let place = match e.position.and_then(|p| p.checked_sub(before + 1)) {
        Some(offset) => format!("In {} of {what}.", Place::of(text, offset)),
        None => format!("In {what}."),
    };
    Error::Server(with(e, &place))
}

/// An error of one statement: the server's own position is one in the statement's text; other errors get the place of the
/// statement where the script has `several`.
pub fn of_error(error: Error, script: &str, statement: &Statement, several: bool) -> Error {
    let begins = Place {
        line: statement.line,
        column: statement.column,
    };
    let begins = format!("In the statement that begins in {begins} of the script.");
    match error {
        Error::Server(e) => {
            let length = statement.text.chars().count();
            let place = match e.position {
                Some(position) if position <= length + 1 => {
                    let place = Place::of(script, statement.offset + position - 1);
                    format!("In {place} of the script.")
                }
                _ => begins,
            };
            Error::Server(with(e, &place))
        }
        mut other => {
            if several
                && !other
                    .detail()
                    .is_some_and(|d| d.to_lowercase().contains("line "))
            {
                match other.detail_mut() {
                    Some(detail) => *detail = format!("{detail} {begins}"),
                    None => return Error::Server(with(as_server_error(&other), &begins)),
                }
            }
            other
        }
    }
}

/// The error of a text that is not the script's.
pub(super) fn without_position(error: Error) -> Error {
    match error {
        Error::Server(mut e) => {
            e.position = None;
            Error::Server(e)
        }
        other => other,
    }
}

fn as_server_error(error: &Error) -> ServerError {
    ServerError {
        code: error.sqlstate(),
        message: error.to_string(),
        detail: error.detail(),
        hint: error.hint(),
        position: None,
    }
}

fn with(mut error: ServerError, place: &str) -> ServerError {
    error.detail = Some(match error.detail {
        Some(detail) => format!("{detail} {place}"),
        None => place.to_string(),
    });
    error
        .hint
        .get_or_insert_with(|| "Correct the statement; nothing was written.".into());
    error
}
