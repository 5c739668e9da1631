//! A dual-write rule: two shapes of one row side by side, and which of them decides when a statement has changed it.

use serde::{Deserialize, Serialize};

/// What keeps the shapes equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mechanism {
    /// The server: the new columns are stored generated columns until the end.
    Rule,
    /// A row trigger of ours.
    Trigger,
}

impl Mechanism {
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Rule => "rule",
            Mechanism::Trigger => "trigger",
        }
    }
}

/// A column and the expression over the same row that it has to equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub column: String,
    /// Every name in it is qualified: it means the same under any search_path.
    pub expression: String,
}

/// The rule of one table, as planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub mechanism: Mechanism,
    /// The statement that adds the new columns, in the same transaction.
    pub add: Option<String>,
    /// The new columns, from the old ones.
    pub forth: Vec<Assignment>,
    /// Old columns, from the new ones; empty: the new columns are computed and not written.
    pub back: Vec<Assignment>,
    /// The columns that `forth` reads.
    pub sources: Vec<String>,
    /// Whether evaluating an expression again gives the same, so that every row can be compared.
    pub exact: bool,
    /// A row that the rule fails on is set aside, and the statement that wrote it goes on.
    pub sets_aside: bool,
    /// The new column is nothing but the old one's other name: it goes at the end, and the old one gets its name.
    pub other_name: bool,
    /// With `meta.keep_old`: the rule that keeps old columns, which the script drops, equal to the new ones after the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Box<Rule>>,
    /// It takes another one back that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<WayBack>,
}

/// What a rule that takes another one back does besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayBack {
    /// Hidden columns, and the names that they have again from the beginning.
    pub shows: Vec<(String, String)>,
    /// What goes in the transaction of its end: statements.
    pub unmakes: Vec<String>,
}

impl Rule {
    pub fn is_two_way(&self) -> bool {
        !self.back.is_empty()
    }

    /// The rule when the end is taken back: both shapes are there again, and both are written.
    pub fn reopened(&self) -> Option<Rule> {
        let after = self.after.as_ref()?;
        Some(Rule {
            mechanism: Mechanism::Trigger,
            back: after.forth.clone(),
            ..self.clone()
        })
    }
}

/// What the trigger is told, as its one argument. Columns by number, with the names that the expressions use, so that a
/// column may get another name meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    pub rule: i64,
    /// oid of the table: elsewhere, in a restored copy, the numbers mean nothing.
    pub table: u32,
    pub columns: Vec<(i16, String)>,
    pub sources: Vec<String>,
    pub forth: Vec<Assignment>,
    pub back: Vec<Assignment>,
    /// Columns that identify a row, for people; used where a row is set aside.
    pub key: Vec<String>,
    pub sets_aside: bool,
    /// Nobody writes the columns that `forth` gives values to: they follow, whatever is in them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows: bool,
}

/// What a statement did to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Whether it gave a value to a new column.
    Insert { new: bool },
    /// Whether it changed an old column that the rule reads, and a new one.
    Update { old: bool, new: bool },
}

/// What the trigger does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// The new columns follow the old ones.
    Forth,
    /// The old columns follow the new ones.
    Back,
    /// Both were written: where they do not agree, the new ones decide, or, if the rule goes one way, it is an error.
    Compare,
}

/// The direction, from what was written alone: no setting of a session decides it.
#[inline(always)]
pub fn action(change: Change, two_way: bool) -> Action {
    match change {
        Change::Insert { new: false } => Action::Forth,
        Change::Insert { new: true } => Action::Compare,
        Change::Update {
            old: false,
            new: false,
        } => Action::Nothing,
        Change::Update {
            old: true,
            new: false,
        } => Action::Forth,
        Change::Update {
            old: false,
            new: true,
        } if two_way => Action::Back,
        Change::Update { new: true, .. } => Action::Compare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_wrote_decides_the_direction() {
        let cases = [
            (Change::Insert { new: false }, Action::Forth, Action::Forth),
            (
                Change::Insert { new: true },
                Action::Compare,
                Action::Compare,
            ),
            (
                Change::Update {
                    old: false,
                    new: false,
                },
                Action::Nothing,
                Action::Nothing,
            ),
            (
                Change::Update {
                    old: true,
                    new: false,
                },
                Action::Forth,
                Action::Forth,
            ),
            (
                Change::Update {
                    old: false,
                    new: true,
                },
                Action::Back,
                Action::Compare,
            ),
            (
                Change::Update {
                    old: true,
                    new: true,
                },
                Action::Compare,
                Action::Compare,
            ),
        ];
        for (change, two_way, one_way) in cases {
            assert_eq!(action(change, true), two_way, "{change:?}");
            assert_eq!(action(change, false), one_way, "{change:?}");
        }
    }

    proptest! {
        #[test]
        fn a_one_way_rule_never_writes_an_old_column(old: bool, new: bool) {
            prop_assert_ne!(action(Change::Update { old, new }, false), Action::Back);
            prop_assert_ne!(action(Change::Insert { new }, false), Action::Back);
        }

        #[test]
        fn a_rule_comes_back_as_it_was_written(column in "\\PC{1,8}", expression in "\\PC{1,30}", exact: bool) {
            let assignment = Assignment { column: column.clone(), expression };
            let rule = Rule {
                mechanism: Mechanism::Trigger,
                add: None,
                forth: vec![assignment.clone()],
                back: vec![],
                sources: vec![column.clone()],
                exact,
                sets_aside: false,
                other_name: false,
                after: None,
                way_back: Some(WayBack { shows: vec![(column.clone(), "x".into())], unmakes: vec!["y".into()] }),
            };
            let rule = Rule { after: Some(Box::new(rule.clone())), ..rule };
            prop_assert_eq!(rule.reopened().map(|r| r.back), Some(rule.forth.clone()));
            let text = serde_json::to_string(&rule).unwrap();
            prop_assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), rule);
            let argument = Argument {
                rule: 1, table: 2, columns: vec![(1, column.clone())], sources: vec![column], forth: vec![assignment],
                back: vec![], key: vec![], sets_aside: true, follows: exact,
            };
            let text = serde_json::to_string(&argument).unwrap();
            prop_assert_eq!(serde_json::from_str::<Argument>(&text).unwrap(), argument);
        }
    }
}
