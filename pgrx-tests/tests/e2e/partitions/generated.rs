//! Generated partitioned tables: strategies, levels, names, layouts of the partitions, indexes; after a migration beside which rows
//! were written everything is as after the plain statement, after a rollback as before.

use transmute_tests::{Database, Session};

use super::assert_same;
use crate::migration::{assert_sound, fingerprint, Migration};

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;
/// By default; TRANSMUTE_CASES takes another number, TRANSMUTE_SEED other tables.
const CASES: u64 = 20;

/// What is done to the table `{t}`, whose columns are k, s, c, e, note.
const CHANGES: [&str; 8] = [
    "ALTER TABLE {t} ALTER c TYPE bigint",
    "ALTER TABLE {t} ALTER c TYPE numeric, ALTER e TYPE numeric(14, 3)",
    "ALTER TABLE {t} ALTER c TYPE int USING c + 1, ALTER e SET NOT NULL, ADD CHECK (e > -5)",
    "ALTER TABLE {t} ADD g bigint GENERATED ALWAYS AS (c * 2) STORED",
    "ALTER TABLE {t} ALTER note TYPE varchar(80) COLLATE \"C\", ADD UNIQUE (k, s, c)",
    "ALTER TABLE {t} ADD UNIQUE (s, k, e)",
    "CREATE INDEX ON {t} (e, lower(note)) WHERE c > 3",
    "ALTER TABLE {t} ALTER c SET NOT NULL, ADD CHECK (length(note) > 0)",
];

/// A sequence of numbers that looks random: the same for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 0
    }
}

struct Tree {
    root: String,
    setup: Vec<String>,
    /// While the migration waits.
    writes: Vec<String>,
}

fn tree(draw: &mut Draw) -> Tree {
    let (prefix, suffix) =
        [("g", ""), ("Ein Name", "\""), ("ünï \"\"cø", "\"")][draw.below(3) as usize];
    let quoted = |part: &str| match suffix {
        "" => format!("{prefix}{part}"),
        _ => format!("\"{prefix}{part}\""),
    };
    let root = quoted("");
    let strategy = ["RANGE", "LIST", "HASH"][draw.below(3) as usize];
    let bound = |i: u64| match strategy {
        "RANGE" => format!("FOR VALUES FROM ({}) TO ({})", i * 100, i * 100 + 100),
        "LIST" => format!("FOR VALUES IN ({i}, {})", i + 3),
        _ => format!("FOR VALUES WITH (MODULUS 3, REMAINDER {i})"),
    };
    let key = if strategy == "RANGE" { "k" } else { "s" };
    let mut setup = vec![format!(
        "CREATE TABLE {root} (k int NOT NULL, s int NOT NULL, c int, e int DEFAULT 1, note text, PRIMARY KEY (k, s)) PARTITION BY {strategy} ({key})"
    )];
    let leaf = |draw: &mut Draw, parent: &str, name: &str, bound: &str| -> Vec<String> {
        match draw.below(3) {
            0 => vec![
                format!("CREATE TABLE {name} (gone text, note text, c int, dropped int, k int NOT NULL, e int DEFAULT 1, s int NOT NULL)"),
                format!("ALTER TABLE {name} DROP gone, DROP dropped"),
                format!("ALTER TABLE {parent} ATTACH PARTITION {name} {bound}"),
            ],
            _ => vec![format!("CREATE TABLE {name} PARTITION OF {parent} {bound}")],
        }
    };
    for i in 0..3 {
        let name = quoted(&format!("_{i}"));
        if i == 1 && draw.yes() {
            setup.push(format!(
                "CREATE TABLE {name} PARTITION OF {root} {} PARTITION BY HASH (k)",
                bound(i)
            ));
            for j in 0..2 {
                let sub = quoted(&format!("_{i}_{j}"));
                let bound = format!("FOR VALUES WITH (MODULUS 2, REMAINDER {j})");
                setup.extend(leaf(draw, &name, &sub, &bound));
            }
        } else {
            setup.extend(leaf(draw, &root, &name, &bound(i)));
        }
    }
    if strategy != "HASH" {
        setup.push(format!(
            "CREATE TABLE {} PARTITION OF {root} DEFAULT",
            quoted("_d")
        ));
    }
    let more = [
        format!("CREATE INDEX ON {root} (c)"),
        format!("CREATE INDEX ON {root} (lower(note), (c + e)) WHERE e > 0"),
        format!("CREATE INDEX ON {} USING hash (note)", quoted("_0")),
        format!("ALTER TABLE {root} ADD CONSTRAINT small CHECK (c < 100000)"),
        format!("ALTER TABLE {root} ADD COLUMN late text DEFAULT 'constant'"),
        format!("CREATE STATISTICS {} ON c, e FROM {root}", quoted("_st")),
        format!("ALTER TABLE {} SET (fillfactor = 60)", quoted("_2")),
        format!("ALTER TABLE {root} ENABLE ROW LEVEL SECURITY"),
        format!("COMMENT ON COLUMN {root}.c IS 'a column'"),
    ];
    setup.extend(more.into_iter().filter(|_| draw.yes()));
    setup.push(format!(
        "INSERT INTO {root} (k, s, c, e, note) SELECT i, i % 6, i % 50, i, 'n' || i FROM generate_series(0, 380) i"
    ));
    setup.push(format!("ANALYZE {root}"));
    let writes = vec![
        format!("INSERT INTO {root} (k, s, c, e, note) SELECT 1000 + i, i % 6, i, i, 'later' FROM generate_series(1, 40) i"),
        format!("UPDATE {root} SET k = k + 2000, s = (s + 1) % 6 WHERE k % 17 = 0"),
        format!("UPDATE {root} SET c = c + 1 WHERE k % 5 = 0"),
        format!("DELETE FROM {root} WHERE k % 13 = 1"),
        format!("BEGIN; DELETE FROM {root}; ROLLBACK"),
    ];
    Tree {
        root,
        setup,
        writes,
    }
}

fn members(session: &mut Session, root: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT relid::regclass FROM pg_partition_tree('{root}') ORDER BY level, relid::regclass::text"
    ))
}

fn print(session: &mut Session, root: &str) -> Vec<String> {
    let mut all: Vec<String> = members(session, root)
        .iter()
        .map(|table| fingerprint(session, table))
        .collect();
    all.extend(session.lines(&format!("SELECT r::text FROM {root} r ORDER BY k, s")));
    all
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

#[test]
fn generated_trees_come_out_of_a_migration_as_out_of_the_plain_statement() {
    let database = Database::shared();
    let mut session = database.connect();
    let seed = number("TRANSMUTE_SEED", 1);
    for case in 0..number("TRANSMUTE_CASES", CASES) {
        let mut draw = Draw(seed.wrapping_mul(1_000_003).wrapping_add(case));
        draw.below(2);
        let tree = tree(&mut draw);
        let ddl = CHANGES[case as usize % CHANGES.len()].replace("{t}", &tree.root);
        let what = format!("case {case}, {ddl}\n{}", tree.setup.join(";\n"));
        let make = |session: &mut Session| {
            session.exec(&format!("DROP TABLE IF EXISTS {} CASCADE", tree.root));
            tree.setup.iter().for_each(|sql| session.exec(sql));
        };
        make(&mut session);
        let before = print(&mut session, &tree.root);
        let id: &'static str = Box::leak(format!("g{case}").into_boxed_str());
        // The last statement has no way back, so that it waits.
        let script = format!("{ddl}; DO 'BEGIN END'");
        let mut migration = Migration::start(&database, id, &script, SOAK);
        migration.wait("AWAITING_FINALIZATION");
        if draw.yes() {
            migration.roll_back();
            assert_same(&what, &print(&mut session, &tree.root), &before);
            migration.apply();
            migration.wait("AWAITING_FINALIZATION");
        }
        tree.writes.iter().for_each(|sql| session.exec(sql));
        migration.call("skip_soak", "'good'");
        migration.finish();
        for leaf in session.lines(&format!(
            "SELECT relid::regclass FROM pg_partition_tree('{}') WHERE isleaf",
            tree.root
        )) {
            assert_sound(&mut session, &leaf);
        }
        let online = print(&mut session, &tree.root);
        make(&mut session);
        tree.writes.iter().for_each(|sql| session.exec(sql));
        session.exec(&ddl);
        assert_same(&what, &online, &print(&mut session, &tree.root));
    }
}
