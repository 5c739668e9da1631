//! SET in a script: for the statements after it.

use super::Planner;
use crate::error::{Error, Result};
use crate::pg::parser::Statement;
use crate::pg::setting::Setting;
use crate::store::step::Kind as StepKind;

/// Settings that say how a session waits, talks or is served; the engine has its own.
const NOT_OURS: [&str; 7] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "client_encoding",
    "client_min_messages",
    "row_security",
];

/// Settings that decide what a statement means or makes.
const MEANING: [&str; 13] = [
    "search_path",
    "check_function_bodies",
    "default_tablespace",
    "default_table_access_method",
    "default_toast_compression",
    "xmloption",
    "timezone",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "bytea_output",
    "extra_float_digits",
    "standard_conforming_strings",
];

impl Planner<'_> {
    pub(super) fn set(&mut self, statement: &Statement, setting: &Setting) -> Result<()> {
        let name = setting.name.to_ascii_lowercase();
        // The script is parsed as a whole, before anything of it is set.
        let parsed_otherwise = name == "standard_conforming_strings"
            && !matches!(setting.value.as_str(), "on" | "true" | "yes" | "1");
        if NOT_OURS.contains(&name.as_str()) {
            return Ok(());
        }
        if parsed_otherwise || !MEANING.contains(&name.as_str()) {
            return Err(Error::Unsupported {
                problem: "the script sets something that is not set for its steps".into(),
                detail: format!(
                    "{} to \"{}\" in line {}.",
                    setting.name, setting.value, statement.line
                ),
                hint: "Set it in the session that registers, or ALTER ROLE … SET.".into(),
            });
        }
        self.caller.session.set(&name, &setting.value);
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, setting.value.clone()));
        Ok(())
    }

    /// Gives what is set to the steps of a statement, those from `first` on.
    pub(super) fn give_settings(&mut self, statement: &Statement, first: usize) -> Result<()> {
        if self.settings.is_empty() {
            return Ok(());
        }
        for planned in &mut self.steps[first..] {
            // These go by more than one transaction, or process, with the settings of register.
            let kind = planned.step.kind.as_str();
            let longer = kind == StepKind::Outside.name() || kind == StepKind::Batch.name();
            let parts = ["rewrite_", "rule_", "leaf_"];
            if longer || parts.iter().any(|p| kind.starts_with(p)) {
                return Err(Error::Unsupported {
                    problem: "SET in a script whose statements are not all run as they stand"
                        .into(),
                    detail: format!("{} in line {} is not.", statement.tag, statement.line),
                    hint: "Take SET out of the script, and set it in the session that registers."
                        .into(),
                });
            }
            planned.step.settings.clone_from(&self.settings);
        }
        Ok(())
    }
}
