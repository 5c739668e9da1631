//! Generated partition trees and a change of the whole tree: afterwards each of its tables is what the plain statement makes of it.

use proptest::prelude::*;
use proptest::sample::select;

use super::case::{AT_THE_END, META, NAMINGS};
use super::naming::{literal, Naming};
use super::proof::{exec, lines, require, require_sound, Outcome, Picture};
use super::trial::Trial;

/// A statement on the tree, and the columns whose values are others each time.
#[derive(Debug)]
pub struct TreeChange {
    pub name: &'static str,
    alter: &'static str,
    volatile: &'static [&'static str],
    /// Each partition is copied: what of the old rows is kept is an artifact.
    copies: bool,
    /// What a rollback leaves behind, as statements: the number of a column.
    leaves: &'static str,
}

const fn copied(name: &'static str, alter: &'static str) -> TreeChange {
    TreeChange {
        name,
        alter,
        volatile: &[],
        copies: true,
        leaves: "",
    }
}

const fn in_place(name: &'static str, alter: &'static str) -> TreeChange {
    TreeChange {
        copies: false,
        ..copied(name, alter)
    }
}

pub const TREE_CHANGES: &[TreeChange] = &[
    copied("tree: a column to bigint", "ALTER TABLE {t} ALTER «v» TYPE bigint, ALTER «v» SET DEFAULT 5000000000"),
    copied("tree: the key to bigint", "ALTER TABLE {t} ALTER «id» TYPE bigint"),
    copied(
        "tree: two columns by USING",
        "ALTER TABLE {t} ALTER «v» TYPE text USING 'v' || «v», ALTER «w» TYPE varchar(60) COLLATE \"C\", ALTER «w» SET STATISTICS 50",
    ),
    copied(
        "tree: a column converted twice, and another one by it",
        "ALTER TABLE {t} ALTER «v» TYPE text USING «v» || 'x'; ALTER TABLE {t} ALTER «w» TYPE text USING «w» || «v»; \
         ALTER TABLE {t} ALTER «v» TYPE numeric USING left(«v», -1)::numeric",
    ),
    TreeChange {
        volatile: &["u"],
        ..copied("tree: a volatile default", "ALTER TABLE {t} ADD «u» uuid NOT NULL DEFAULT gen_random_uuid()")
    },
    copied("tree: a generated column", "ALTER TABLE {t} ADD «sum» bigint GENERATED ALWAYS AS («id» + «k») STORED CHECK («sum» > 0)"),
    copied(
        "tree: many subcommands",
        "ALTER TABLE {t} ALTER «v» TYPE bigint, ALTER «w» SET NOT NULL, ADD «more» int DEFAULT 3, ADD CONSTRAINT «wide» CHECK («id» < 1000000), \
         ADD CONSTRAINT «three» UNIQUE («id», «k», «v»)",
    ),
    TreeChange {
        leaves: "ALTER TABLE {t} ADD «more» int; ALTER TABLE {t} DROP «more»",
        ..in_place("tree: a constant default", "ALTER TABLE {t} ADD «more» int DEFAULT 7 CHECK («more» > 0)")
    },
    copied(
        "tree: the same type by USING",
        "ALTER TABLE {t} ALTER «v» TYPE int USING «v» + 1, ALTER «w» SET NOT NULL, ADD CHECK («v» > -5)",
    ),
    in_place("tree: an index without a name", "CREATE INDEX ON {t} («v», upper(«w»)) WHERE «ref» > 3"),
    in_place("tree: SET NOT NULL", "ALTER TABLE {t} ALTER «w» SET NOT NULL"),
    in_place("tree: a CHECK", "ALTER TABLE {t} ADD CONSTRAINT «wide» CHECK («id» < 1000000)"),
    in_place("tree: a unique constraint", "ALTER TABLE {t} ADD CONSTRAINT «three» UNIQUE («id», «k», «v»)"),
    in_place("tree: an index", "CREATE INDEX «by_w» ON {t} («w» DESC, «v») INCLUDE («id»)"),
    in_place(
        "tree: a foreign key",
        "ALTER TABLE {t} ADD CONSTRAINT «other» FOREIGN KEY («ref») REFERENCES {s}.«goal» ON DELETE SET NULL",
    ),
    in_place("tree: a column less", "ALTER TABLE {t} DROP COLUMN «w»"),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Range,
    List,
    Hash,
}

/// How a partition differs from its table.
#[derive(Clone, Debug)]
struct Leaf {
    /// Made by itself, with columns in another order and some dropped, then attached.
    attached: bool,
    /// An index of its own that its table has as well, made before that.
    prebuilt: bool,
    index: bool,
    check: bool,
}

#[derive(Clone, Debug)]
pub struct Tree {
    pub change: &'static TreeChange,
    naming: Naming,
    by: By,
    leaves: Vec<Leaf>,
    default: bool,
    /// The first partition is partitioned itself.
    sub: Option<By>,
    /// PRIMARY KEY, else a unique index.
    primary: bool,
    dropped: bool,
    index: bool,
    check: bool,
    reference: bool,
    trigger: bool,
    rows: u32,
    /// Rolled back once before it goes on to its end.
    back: bool,
}

pub fn trees(change: &'static TreeChange) -> impl Strategy<Value = Tree> {
    let by = || select(&[By::Range, By::List, By::Hash][..]);
    let leaf =
        any::<(bool, bool, bool, bool)>().prop_map(|(attached, prebuilt, index, check)| Leaf {
            attached,
            prebuilt,
            index,
            check,
        });
    (
        (
            select(NAMINGS),
            by(),
            proptest::collection::vec(leaf, 1..4),
            proptest::option::of(by()),
        ),
        any::<(bool, bool, bool, bool, bool, bool, bool, bool)>(),
        40..200_u32,
    )
        .prop_map(move |((naming, by, leaves, sub), flags, rows)| {
            let (default, primary, dropped, index, check, reference, trigger, back) = flags;
            Tree {
                change,
                naming,
                by,
                leaves,
                default: default && by != By::Hash,
                sub,
                primary,
                dropped,
                index,
                check,
                reference,
                trigger,
                rows,
                back,
            }
        })
}

impl Tree {
    fn fill_in(&self, sql: &str) -> String {
        let naming = self.naming;
        naming.fill_in_names(
            &sql.replace("{t}", &naming.table())
                .replace("{s}", &naming.schema())
                .replace("{rows}", &self.rows.to_string())
                .replace("{keys}", &self.keys().to_string()),
        )
    }

    /// Values of the partition key: 0 up to this.
    fn keys(&self) -> usize {
        let parts = self.leaves.len() + usize::from(self.default);
        match self.by {
            By::Range => parts * 10,
            By::List | By::Hash => parts,
        }
    }

    fn bounds(&self, i: usize) -> String {
        match self.by {
            By::Range => format!("FOR VALUES FROM ({}) TO ({})", i * 10, (i + 1) * 10),
            By::List => format!("FOR VALUES IN ({i})"),
            By::Hash => format!(
                "FOR VALUES WITH (MODULUS {}, REMAINDER {i})",
                self.leaves.len()
            ),
        }
    }

    /// The tables of the tree, the first one its root.
    fn tables(&self) -> Vec<String> {
        let mut words: Vec<String> = (0..self.leaves.len()).map(|i| format!("leaf{i}")).collect();
        words.extend(self.default.then(|| "rest".to_string()));
        if self.sub.is_some() {
            words.extend(["sub1".to_string(), "sub2".to_string()]);
        }
        let schema = self.naming.schema();
        let all = words
            .iter()
            .map(|w| format!("{schema}.{}", self.naming.quoted(w)));
        std::iter::once(self.naming.table()).chain(all).collect()
    }

    /// Those that hold rows.
    fn leaves(&self) -> Vec<String> {
        let parents = 1 + usize::from(self.sub.is_some());
        self.tables().split_off(parents)
    }

    fn setup(&self) -> Vec<String> {
        let mut sql = vec![
            "CREATE SCHEMA {s}".to_string(),
            "CREATE TABLE {s}.«goal» («id» int PRIMARY KEY); INSERT INTO {s}.«goal» SELECT generate_series(1, 60)".to_string(),
            format!(
                "CREATE TABLE {{t}} («old» text, «id» int NOT NULL, «k» int NOT NULL, «v» int DEFAULT 4, «w» text DEFAULT 'w', «ref» int) \
                 PARTITION BY {:?} («k»)",
                self.by
            ),
        ];
        let key = match self.primary {
            true => "ALTER TABLE {t} ADD CONSTRAINT «key» PRIMARY KEY («id», «k»)",
            false => "CREATE UNIQUE INDEX «key» ON {t} («k», «id»)",
        };
        sql.extend(
            self.dropped
                .then(|| "ALTER TABLE {t} DROP COLUMN «old»".to_string()),
        );
        let old = match self.dropped {
            true => "",
            false => "«old» text, ",
        };
        for (i, leaf) in self.leaves.iter().enumerate() {
            let (name, bounds) = (format!("{{s}}.«leaf{i}»"), self.bounds(i));
            match (i, self.sub) {
                (0, Some(sub)) => {
                    sql.push(format!("CREATE TABLE {name} PARTITION OF {{t}} {bounds} PARTITION BY {sub:?} («id»)"));
                    let (first, second) = match sub {
                        By::Hash => ("FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "FOR VALUES WITH (MODULUS 2, REMAINDER 1)"),
                        By::Range => ("FOR VALUES FROM (MINVALUE) TO (50)", "DEFAULT"),
                        By::List => ("FOR VALUES IN (1, 2, 3, 4, 5, 6)", "DEFAULT"),
                    };
                    for (sub, bounds) in [("sub1", first), ("sub2", second)] {
                        sql.push(format!("CREATE TABLE {{s}}.«{sub}» PARTITION OF {name} {bounds}"));
                    }
                }
                _ if leaf.attached => sql.extend([
                    format!(
                        "CREATE TABLE {name} («gone» text, «w» text DEFAULT 'own', «v» int DEFAULT 4, «gone2» int, «k» int NOT NULL, \
                         {old}«id» int NOT NULL, «ref» int); ALTER TABLE {name} DROP «gone», DROP «gone2»"
                    ),
                    format!("ALTER TABLE {{t}} ATTACH PARTITION {name} {bounds}"),
                ]),
                _ => sql.push(format!("CREATE TABLE {name} PARTITION OF {{t}} {bounds}")),
            }
            if leaf.prebuilt {
                sql.push(format!("CREATE INDEX «own{i}» ON {name} («v»)"));
            }
        }
        sql.extend(
            self.default
                .then(|| "CREATE TABLE {s}.«rest» PARTITION OF {t} DEFAULT".to_string()),
        );
        sql.push(key.to_string());
        let more = [
            (self.index, "CREATE INDEX «by_v» ON {t} («v»); CREATE INDEX «by_text» ON {t} (lower(«w»)) WHERE «id» > 3"),
            (self.check, "ALTER TABLE {t} ADD CONSTRAINT «some» CHECK («id» > 0 AND «k» >= 0)"),
            (self.reference, "ALTER TABLE {t} ADD CONSTRAINT «refers» FOREIGN KEY («ref») REFERENCES {s}.«goal»"),
            (
                self.trigger,
                "CREATE FUNCTION {s}.«idle»() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
                 CREATE TRIGGER «idle» AFTER INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {s}.«idle»(); \
                 CREATE STATISTICS {s}.«stat» ON «id», «ref» FROM {t}; COMMENT ON COLUMN {t}.«v» IS 'seen'; GRANT SELECT («v») ON {t} TO PUBLIC; \
                 ALTER TABLE {t} ENABLE ROW LEVEL SECURITY; ALTER TABLE {t} ADD «late» text DEFAULT 'constant'",
            ),
        ];
        sql.extend(more.into_iter().filter(|m| m.0).map(|m| m.1.to_string()));
        for (i, leaf) in self.leaves.iter().enumerate() {
            if leaf.index && !(i == 0 && self.sub.is_some()) {
                sql.push(format!(
                    "CREATE INDEX «local{i}» ON {{s}}.«leaf{i}» («v», «w») WHERE «ref» > 2; ALTER TABLE {{s}}.«leaf{i}» SET (fillfactor = 60)"
                ));
            }
            if leaf.check {
                sql.push(format!(
                    "ALTER TABLE {{s}}.«leaf{i}» ADD CONSTRAINT «here{i}» CHECK («ref» < 100)"
                ));
            }
        }
        sql.push(
            "INSERT INTO {t} («id», «k», «v», «w», «ref») SELECT g, g % {keys}, g * 3, 'w' || g, g % 50 + 1 FROM generate_series(1, {rows}) AS g"
                .to_string(),
        );
        sql.push("ANALYZE {t}".to_string());
        sql.iter().map(|sql| self.fill_in(sql)).collect()
    }

    /// What the application writes meanwhile: rows also move between partitions.
    fn writes(&self, round: u32) -> String {
        let text = format!(
            "UPDATE {{t}} SET «v» = «v» + 1 WHERE «id» % 7 = 0; DELETE FROM {{t}} WHERE «id» % 11 = {round}; \
             UPDATE {{t}} SET «k» = («k» + 1) % {{keys}} WHERE «id» % 13 = 0; \
             INSERT INTO {{t}} («id», «k», «v», «ref») SELECT g, g % {{keys}}, g, 7 FROM generate_series({}, {}) AS g",
            1000 + 100 * round,
            1020 + 100 * round
        );
        self.fill_in(&text)
    }

    /// For people.
    pub fn script(&self) -> String {
        let setup = self.setup().join(";\n");
        format!(
            "{setup};\n{};\n-- {}",
            self.writes(0),
            self.fill_in(self.change.alter)
        )
    }
}

/// A tree on both sides, the change by a migration on the one, as it stands on the other.
pub fn run(trial: &mut Trial, tree: &Tree) -> Outcome<()> {
    for sql in tree.setup() {
        trial.on_both(&sql)?;
    }
    let alter = tree.fill_in(tree.change.alter);
    let script = literal(&format!("{alter}{AT_THE_END}"));
    let id = trial.next_id();
    exec(
        &mut trial.migrated,
        &format!("SELECT transmute.migrate({script}, '{id}', '{META}')"),
    )?;
    trial.wait(&id, "AWAITING_FINALIZATION")?;
    trial.on_both(&tree.writes(0))?;
    if tree.back {
        exec(
            &mut trial.migrated,
            &format!("SELECT transmute.rollback('{id}', 'changed our mind')"),
        )?;
        trial.wait(&id, "UNINITIALIZED")?;
        exec(&mut trial.reference, &tree.fill_in(tree.change.leaves))?;
        compare(trial, tree, &[], "after the rollback")?;
        exec(
            &mut trial.migrated,
            &format!("SELECT FROM transmute.apply('{id}')"),
        )?;
        trial.wait(&id, "AWAITING_FINALIZATION")?;
        trial.on_both(&tree.writes(1))?;
    }
    trial.finish(&id)?;
    exec(&mut trial.reference, &alter).map_err(|error| format!("plain: {error}"))?;
    let artifacts = format!(
        "SELECT count(*) > 0 FROM transmute.artifacts WHERE id = '{id}' AND kind = 'table'"
    );
    let kept = lines(&mut trial.migrated, &artifacts)?;
    require(
        kept == [if tree.change.copies { "t" } else { "f" }],
        &format!("artifacts: {kept:?}"),
    )?;
    trial.expire_columns()?;
    let volatile: Vec<String> = tree
        .change
        .volatile
        .iter()
        .map(|w| tree.naming.name(w))
        .collect();
    compare(trial, tree, &volatile, "after the change")?;
    for table in tree.leaves() {
        require_sound(&mut trial.migrated, &table)?;
    }
    trial.drop_artifacts()?;
    for session in [&mut trial.reference, &mut trial.migrated] {
        exec(session, &tree.fill_in("DROP SCHEMA {s} CASCADE"))?;
    }
    Ok(())
}

/// Both databases say the same of every table of the tree.
fn compare(trial: &mut Trial, tree: &Tree, volatile: &[String], what: &str) -> Outcome<()> {
    for table in tree.tables() {
        let plain = Picture::take(&mut trial.reference, &table, volatile, &[])?;
        Picture::take(&mut trial.migrated, &table, volatile, &[])?
            .require_equal(&plain, &format!("{what}, {table}"))?;
    }
    Ok(())
}
