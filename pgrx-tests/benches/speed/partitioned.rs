//! A table becomes partitioned: the script as it is written, for whose time the application must not write, and the same online.

use crate::in_place::{measure, online, Measured, Way, ONLINE};
use crate::{at_most, Aim};

const ROWS: u32 = 1_000_000;
const SCRIPT: &str = "CREATE TABLE t_new (LIKE t INCLUDING ALL) PARTITION BY HASH (id);
    CREATE TABLE t_0 PARTITION OF t_new FOR VALUES WITH (MODULUS 4, REMAINDER 0);
    CREATE TABLE t_1 PARTITION OF t_new FOR VALUES WITH (MODULUS 4, REMAINDER 1);
    CREATE TABLE t_2 PARTITION OF t_new FOR VALUES WITH (MODULUS 4, REMAINDER 2);
    CREATE TABLE t_3 PARTITION OF t_new FOR VALUES WITH (MODULUS 4, REMAINDER 3);
    INSERT INTO t_new SELECT * FROM t;
    ALTER TABLE t RENAME TO t_old;
    ALTER TABLE t_new RENAME TO t";

const WAYS: [Way; 2] = [
    ("the script (application stands)", |session| {
        session.exec(&format!("BEGIN; LOCK TABLE t; {SCRIPT}; COMMIT"));
    }),
    (ONLINE, |session| online(session, SCRIPT)),
];

pub fn run() -> Vec<Aim> {
    let cluster = crate::quiet_cluster();
    let Measured { seconds, wal, .. } =
        measure(&cluster, "A table becomes partitioned", ROWS, &WAYS);
    vec![
        at_most(
            "a table of 1 M rows becomes partitioned, every row compared, seconds of the script's",
            seconds[1] / seconds[0],
            1.2,
            " x",
        ),
        at_most("the same, WAL", wal[1] / wal[0], 1.2, " x"),
    ]
}
