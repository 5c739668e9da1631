//! The server's own lexer: where the tokens of a text are. What lies between them is blanks and comments.

use super::parser::to_c;
use crate::error::Result;
use crate::model::source::Span;
use pgrx::pg_sys;
use std::ffi::{c_char, c_int, CStr};

/// The tokens of a text, in bytes. What the server cannot read is its own ERROR.
pub fn words(text: &str) -> Result<Vec<Span>> {
    let source = to_c(text)?;
    let mut found = Vec::new();
    // SAFETY: the scanner copies the text; `extra` outlives it. The server puts a zero byte behind the token that it has just
    // given (pg_stat_statements counts on it, too), so that the buffer from there on is a C string.
    unsafe {
        let mut extra: pg_sys::core_yy_extra_type = std::mem::zeroed();
        let scanner = pg_sys::scanner_init(
            source.as_ptr(),
            &raw mut extra,
            &raw const pg_sys::ScanKeywords,
            (&raw const pg_sys::ScanKeywordTokens).cast(),
        );
        // What is loaded is not run here: warnings come when it is.
        extra.escape_string_warning = false;
        let mut value = pg_sys::core_YYSTYPE::default();
        let mut at: c_int = 0;
        while pg_sys::core_yylex(&raw mut value, &raw mut at, scanner) != 0 {
            let start = usize::try_from(at).unwrap_or(0);
            let token: *const c_char = extra.scanbuf.add(start);
            let length = CStr::from_ptr(token).to_bytes().len();
            found.push(Span {
                start,
                end: start + length,
            });
        }
        pg_sys::scanner_finish(scanner);
    }
    Ok(found)
}
