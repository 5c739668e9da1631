//! A planned script as text for people, at most 120 columns wide, and as one JSON document for programs.

use super::{Plain, Planned, Script};
use crate::model::lock::Lock;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::model::risk::Level;
use serde_json::{json, Value};

/// Widest line of the text.
const WIDTH: usize = 120;
/// Lines of a statement's own text that are shown.
const SHOWN_LINES: usize = 6;
/// Longest text of a step that is shown.
const SHOWN_STEP: usize = 400;

impl Script {
    fn steps_of<'a>(&'a self, plain: &'a Plain) -> impl Iterator<Item = &'a Planned> {
        self.steps
            .iter()
            .filter(move |p| p.statement == plain.number)
    }

    /// Highest score of a plain statement, and of a step.
    fn worst(&self) -> (i32, i32) {
        let plain = self.plain.iter().map(|p| p.score).max().unwrap_or(0);
        let online = self.steps.iter().map(|p| p.step.risk_score).max();
        (plain, online.unwrap_or(0))
    }

    /// For people.
    pub fn text(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for plain in &self.plain {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            self.statement_text(plain, &mut lines);
        }
        let (plain, online) = self.worst();
        lines.push(String::new());
        lines.push(format!(
            "{}, {}; highest risk plain {}, online {}",
            count(self.plain.len(), "statement"),
            count(self.steps.len(), "step"),
            risk(plain),
            risk(online)
        ));
        lines
    }

    fn statement_text(&self, plain: &Plain, lines: &mut Vec<String>) {
        let words: Vec<String> = plain.operations.iter().map(ToString::to_string).collect();
        let on = match plain.target.is_empty() {
            true => String::new(),
            false => format!(" on {}", plain.target),
        };
        let head = format!("{}. {}{on}", plain.number, words.join(", "));
        wrap(
            lines,
            "",
            "   ",
            &format!("{head} (line {}){}", plain.line, size(plain)),
        );
        let given: Vec<&str> = plain.text.lines().collect();
        for line in given.iter().take(SHOWN_LINES) {
            lines.push(cut(&format!("   | {}", line.replace('\t', "  ")), WIDTH));
        }
        if given.len() > SHOWN_LINES {
            lines.push(format!(
                "   | … {}",
                count(given.len() - SHOWN_LINES, "more line")
            ));
        }
        let label = "   plain   ";
        let time = seconds(&plain.estimate);
        wrap(
            lines,
            label,
            BLANK,
            &format!("{}{time} · risk {}", plain.words, risk(plain.score)),
        );
        locks_text(lines, &plain.locks);
        reasons_text(lines, &plain.reasons);
        let steps: Vec<&Planned> = self.steps_of(plain).collect();
        let worst = steps.iter().map(|p| p.step.risk_score).max().unwrap_or(0);
        let total = Estimate {
            rows: steps
                .iter()
                .map(|p| p.step.estimate.rows)
                .max()
                .unwrap_or(0),
            seconds: steps.iter().map(|p| p.step.estimate.seconds).sum(),
            ..Estimate::default()
        };
        wrap(
            lines,
            "   online  ",
            BLANK,
            &match plain.with {
                Some(other) => format!("by the steps of statement {other}"),
                None => format!(
                    "{}{} · risk {}",
                    count(steps.len(), "step"),
                    seconds(&total),
                    risk(worst)
                ),
            },
        );
        for note in &plain.notes {
            wrap(lines, "   why     ", BLANK, note);
        }
        for planned in steps {
            step_text(planned, lines);
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let (plain, online) = self.worst();
        let total: i32 = self
            .steps
            .iter()
            .fold(0, |sum, p| i32::saturating_add(sum, p.step.risk_score));
        json!({
            "statements": self.plain.iter().map(|p| self.statement_json(p)).collect::<Vec<_>>(),
            "plain_max_risk": plain,
            "max_risk": online,
            "total_risk": total,
            "risk_level": Level::of_score(online),
        })
    }

    fn statement_json(&self, plain: &Plain) -> Value {
        json!({
            "statement": plain.number,
            "line": plain.line,
            "sql": plain.text,
            "operations": plain.operations,
            "target": plain.target,
            "rows": plain.facts.rows,
            "bytes": plain.facts.bytes,
            "writes_per_second": plain.facts.writes_per_second,
            "plain": {
                "does": plain.words,
                "locks": plain.locks,
                "rewrites": plain.rewrites,
                "scans": plain.scans,
                "transactional": plain.transactional,
                "estimate": plain.estimate,
                "risk_score": plain.score,
                "risk_level": plain.level(),
                "reasons": plain.reasons,
            },
            "notes": plain.notes,
            "with_statement": plain.with,
            "steps": self.steps_of(plain).map(|p| &p.step).collect::<Vec<_>>(),
        })
    }
}

/// Under the labels of a statement.
const BLANK: &str = "           ";

fn step_text(planned: &Planned, lines: &mut Vec<String>) {
    let step = &planned.step;
    let aside = match step.transactional {
        true => "",
        false => " · not in a transaction",
    };
    lines.push(cut(
        &format!(
            "   {:>4}  {:<9} {:<18} {}{aside} · risk {}",
            step.step,
            step.phase.to_string(),
            step.kind,
            seconds(&step.estimate).trim_start_matches(", "),
            risk(step.risk_score)
        )
        .replace("  · ", " · "),
        WIDTH,
    ));
    let text = step.sql.split_whitespace().collect::<Vec<_>>().join(" ");
    wrap(lines, "         ", "           ", &cut(&text, SHOWN_STEP));
    locks_text(lines, &step.locks);
    reasons_text(lines, &step.reasons);
}

fn locks_text(lines: &mut Vec<String>, locks: &[Lock]) {
    if !locks.is_empty() {
        let texts: Vec<String> = locks.iter().map(ToString::to_string).collect();
        wrap(
            lines,
            "           locks ",
            "                 ",
            &texts.join(", "),
        );
    }
}

fn reasons_text(lines: &mut Vec<String>, reasons: &[Reason]) {
    if !reasons.is_empty() {
        let texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        wrap(
            lines,
            "           risks ",
            "                 ",
            &texts.join(", "),
        );
    }
}

fn risk(score: i32) -> String {
    format!("{} {score}", Level::of_score(score))
}

fn size(plain: &Plain) -> String {
    let facts = &plain.facts;
    if facts.rows == 0 {
        return String::new();
    }
    let writes = match facts.is_hot() {
        true => format!(", {:.0} writes/s", facts.writes_per_second),
        false => String::new(),
    };
    format!(": {} rows{writes}", grouped(facts.rows))
}

/// `, about 2 min`; empty where nothing is estimated.
fn seconds(estimate: &Estimate) -> String {
    if estimate.rows == 0 {
        return String::new();
    }
    let s = estimate.seconds;
    match s {
        _ if s < 1.0 => ", less than 1 s".into(),
        _ if s < 120.0 => format!(", about {s:.0} s"),
        _ if s < 7200.0 => format!(", about {:.0} min", s / 60.0),
        _ => format!(", about {:.1} h", s / 3600.0),
    }
}

fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}…")
}

/// Adds `text` behind `first`, broken at spaces, later lines behind `rest`.
fn wrap(lines: &mut Vec<String>, first: &str, rest: &str, text: &str) {
    let mut line = first.to_string();
    let mut empty = true;
    for word in text.split(' ') {
        let needed = line.chars().count() + word.chars().count() + usize::from(!empty);
        if !empty && needed > WIDTH {
            let full = std::mem::replace(&mut line, rest.to_string());
            lines.push(cut(&full, WIDTH));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(cut(&line, WIDTH));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_line_is_wider_than_a_terminal(text in "\\PC{0,400}") {
            let mut lines = Vec::new();
            wrap(&mut lines, "   plain   ", BLANK, &text);
            prop_assert!(lines.iter().all(|l| l.chars().count() <= WIDTH));
            prop_assert!(cut(&text, 30).chars().count() <= 30);
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(50_000_000), "50,000,000");
        let of = |rows, s| {
            seconds(&Estimate {
                rows,
                bytes: 0,
                seconds: s,
            })
        };
        assert_eq!(of(0, 5.0), "");
        assert_eq!(of(1, 0.2), ", less than 1 s");
        assert_eq!(of(1, 119.0), ", about 119 s");
        assert_eq!(of(1, 600.0), ", about 10 min");
        assert_eq!(of(1, 9000.0), ", about 2.5 h");
    }
}
