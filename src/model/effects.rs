//! What a statement does to the names of a schema, and whether two statements of a script may change places.

use super::mentions::Mentions;

/// What kind of name it is; names of different kinds do not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Relation,
    Type,
    Schema,
    Other,
}

/// A name as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    pub space: Space,
    pub schema: Option<String>,
    pub name: String,
}

/// What one statement does, as far as its parse tree tells.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Comes into being, or gets this name.
    pub makes: Vec<Object>,
    /// Is not there any more under this name.
    pub drops: Vec<Object>,
    /// Changes, or has its rows changed.
    pub alters: Vec<Object>,
    /// A relation that gets another name: old and new.
    pub renames: Option<(Object, Object)>,
    /// What it reads to put rows into another relation: INSERT … SELECT, CREATE TABLE AS.
    pub copies: Vec<Object>,
    /// Comments, privileges, owners: it changes nothing that another statement builds on.
    pub light: bool,
    /// It may do anything: DO, CALL, CREATE EXTENSION, …
    pub unknown: bool,
    pub mentions: Mentions,
}

/// Why a statement cannot run before an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// One changes what the other one uses.
    Shape,
    /// One makes, renames or drops what the other one uses.
    Name,
    /// One of them may do anything.
    Unknown,
}

impl Effects {
    /// What ties this statement to an earlier one; `None`: they may change places.
    pub fn tie_to(&self, earlier: &Effects) -> Option<Tie> {
        if self.renamed_or_gone(earlier) || earlier.renamed_or_gone(self) {
            return Some(Tie::Name);
        }
        if self.unknown || earlier.unknown {
            return Some(Tie::Unknown);
        }
        (self.changed(earlier) || earlier.changed(self)).then_some(Tie::Shape)
    }

    /// `other` makes, renames or drops something that this one mentions.
    fn renamed_or_gone(&self, other: &Effects) -> bool {
        other
            .makes
            .iter()
            .chain(&other.drops)
            .any(|object| self.mentions.has(object.schema.as_deref(), &object.name))
    }

    /// `other` changes something that this one mentions.
    fn changed(&self, other: &Effects) -> bool {
        !self.light
            && !other.light
            && other
                .alters
                .iter()
                .any(|object| self.mentions.has(object.schema.as_deref(), &object.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(name: &str) -> Object {
        Object {
            space: Space::Relation,
            schema: None,
            name: name.into(),
        }
    }

    fn statement(text: &str, makes: &[&str], drops: &[&str], alters: &[&str]) -> Effects {
        let list = |names: &[&str]| names.iter().map(|n| relation(n)).collect();
        Effects {
            makes: list(makes),
            drops: list(drops),
            alters: list(alters),
            mentions: Mentions::of(text),
            ..Effects::default()
        }
    }

    #[test]
    fn what_is_made_is_there_before_it_is_used() {
        let make = statement("CREATE TABLE a ()", &["a"], &[], &[]);
        let index = statement("CREATE INDEX ON a (x)", &[], &[], &["a"]);
        let other = statement("CREATE INDEX ON b (x)", &[], &[], &["b"]);
        assert_eq!(index.tie_to(&make), Some(Tie::Name));
        assert_eq!(other.tie_to(&make), None);
    }

    #[test]
    fn what_is_dropped_was_used_before() {
        let view = statement("CREATE VIEW v AS SELECT x FROM a", &["v"], &[], &[]);
        let drop = statement("DROP TABLE a", &[], &["a"], &[]);
        assert_eq!(drop.tie_to(&view), Some(Tie::Name));
    }

    #[test]
    fn a_comment_does_not_mind_a_change_but_a_rename() {
        let mut comment = statement("COMMENT ON TABLE a IS 'x'", &[], &[], &["a"]);
        comment.light = true;
        let alter = statement("ALTER TABLE a ADD x int", &[], &[], &["a"]);
        let rename = statement("ALTER TABLE a RENAME TO b", &["b"], &["a"], &[]);
        assert_eq!(alter.tie_to(&comment), None);
        assert_eq!(comment.tie_to(&alter), None);
        assert_eq!(rename.tie_to(&comment), Some(Tie::Name));
    }

    #[test]
    fn what_may_do_anything_keeps_its_place() {
        let mut anything = statement("DO $$ $$", &[], &[], &[]);
        anything.unknown = true;
        let alter = statement("ALTER TABLE a ADD x int", &[], &[], &["a"]);
        assert_eq!(alter.tie_to(&anything), Some(Tie::Unknown));
        assert_eq!(anything.tie_to(&alter), Some(Tie::Unknown));
    }
}
