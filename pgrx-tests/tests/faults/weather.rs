//! Faults that last: every migration goes its whole way while its database suffers from one of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use transmute_tests::{tools, Disk, StopMode};

use super::cell::{journeys, Cell};
use super::client::Manners;
use super::field::{self, Field};
use super::figures::Figures;
use super::people;
use super::sample;
use super::scenario;
use super::storm::{self, Storm};

struct Weather {
    number: &'static str,
    /// Of the server.
    conf: &'static [&'static str],
    /// Set when all have set out, by a restart.
    later: &'static [&'static str],
    /// The databases are on a disk of their own, in memory.
    own_disk: bool,
    /// The server reads its time from a file.
    own_clock: bool,
    /// Of each database, as ALTER DATABASE sets them.
    habits: &'static [&'static str],
    /// What the application and the person set for themselves, who could not work either.
    own: &'static [&'static str],
    workers: bool,
    storm: Option<Storm>,
    /// What the application puts up with.
    manners: Manners,
}

const FAIR: Weather = Weather {
    number: "",
    conf: &[],
    later: &[],
    own_disk: false,
    own_clock: false,
    habits: &[],
    own: &[],
    workers: true,
    storm: None,
    manners: PATIENT_CLIENT,
};

/// Every wait of the application has an end, though it waits as long as it takes.
const PATIENT_CLIENT: Manners = Manners {
    lock_timeout: 10_000,
    errors: &[],
    bound: Duration::from_secs(5),
};

const fn may_see(errors: &'static [&'static str]) -> Manners {
    Manners {
        errors,
        ..PATIENT_CLIENT
    }
}

/// All faults that are drawn.
pub const ALL: [&str; 19] = [
    "f7", "f8", "f9", "f9c", "f10", "f11", "f12", "f12r", "f12c", "f13", "f13l", "f14", "f15",
    "f16", "f17", "f18", "f20", "f22", "f23",
];

fn endure(weather: &Weather) {
    assert!(ALL.contains(&weather.number), "{}", weather.number);
    if !sample::is_drawn(weather.number, &ALL) {
        return;
    }
    let wanted = std::env::var("CELL").unwrap_or_default();
    let cells: Vec<Cell> = sample::journeys(&journeys(), weather.number)
        .into_iter()
        .filter(|cell| cell.name().contains(&wanted))
        // A soak, and what is kept for an hour, last as long as the clock says.
        .filter(|cell| !weather.own_clock || !scenario::named(cell.scenario).has_deadline())
        .collect();
    let disk = match weather.own_disk.then(|| Disk::mount(16 + 14 * cells.len())) {
        Some(None) => {
            println!(
                "{}: skipped, this user may not mount a tmpfs",
                weather.number
            );
            return;
        }
        disk => disk.flatten(),
    };
    // Background processes of 15 go on with the time at which they began, whatever its file says.
    if weather.own_clock && tools::version_under_test() < 18 {
        println!(
            "{}: skipped, libfaketime is followed from 18 on",
            weather.number
        );
        return;
    }
    let clock = match weather.own_clock.then(Clock::new) {
        Some(None) => {
            println!("{}: skipped, there is no libfaketime", weather.number);
            return;
        }
        clock => clock.flatten(),
    };
    let mut builder = field::builder(weather.workers, weather.conf);
    for (name, value) in clock.iter().flat_map(Clock::environment) {
        builder = builder.env(name, &value);
    }
    let cluster = field::start(builder);
    if let Some(disk) = &disk {
        cluster.connect().exec(&format!(
            "CREATE TABLESPACE small LOCATION '{}'",
            disk.path().display()
        ));
    }
    let mut field = Field::on(&cluster);
    let version: i32 = cluster
        .connect()
        .scalar("SELECT current_setting('server_version_num')::int");
    let is_known =
        |setting: &&&str| version >= 170_000 || !setting.starts_with("transaction_timeout");
    let own = weather.own.iter().filter(is_known);
    let options: String = own.map(|one| format!(" -c {one}")).collect();
    for cell in &cells {
        field.add(cell, None);
        let place = field.places.last_mut().expect("just added");
        for habit in weather.habits.iter().filter(is_known) {
            cluster.connect().exec(&format!(
                "ALTER DATABASE {} SET {habit}",
                place.database.name()
            ));
        }
        if disk.is_some() {
            cluster.connect().exec(&format!(
                "ALTER DATABASE {} SET TABLESPACE small",
                place.database.name()
            ));
        }
        place.options = options.clone();
    }
    let clients = field.clients(weather.manners);
    let stop = Arc::new(AtomicBool::new(false));
    let storms: Vec<_> = field
        .configs()
        .into_iter()
        .filter_map(|config| weather.storm.map(|storm| (storm, config)))
        .map(|(storm, config)| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || storm(config, &stop))
        })
        .chain(clock.map(|clock| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || clock.jump(&stop))
        }))
        .collect();
    let mut figures = Figures {
        cells: cells.len(),
        ..Figures::default()
    };
    let mut found = Vec::new();
    for place in &mut field.places {
        place.set_out(weather.workers);
    }
    if !weather.later.is_empty() {
        weather
            .later
            .iter()
            .for_each(|line| cluster.append_conf(line));
        cluster.restart(StopMode::Fast);
    }
    for place in &mut field.places {
        found.extend(place.travel(weather.workers).err());
    }
    stop.store(true, Ordering::Relaxed);
    for storm in storms {
        storm.join().expect("a storm");
    }
    let found = field.check(clients, &mut figures, found);
    figures.report(weather.number);
    assert!(found.is_empty(), "{found:#?}");
}

/// What the server takes for the time, by libfaketime.
struct Clock {
    library: std::path::PathBuf,
    folder: tempfile::TempDir,
}

impl Clock {
    fn new() -> Option<Clock> {
        let file = "usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        let library = tools::debian("libfaketime", file)?;
        let folder = tempfile::Builder::new()
            .prefix("transmute-clock-")
            .tempdir_in("/tmp")
            .expect("a folder");
        let clock = Clock { library, folder };
        clock.set("+0");
        tools::give_to_server_user(clock.folder.path());
        Some(clock)
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("offset")
    }

    fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_string()),
            ("DONT_FAKE_MONOTONIC", "1".to_string()),
        ]
    }

    fn set(&self, offset: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, offset).expect("the clock's file");
        std::fs::rename(&new, self.file()).expect("the clock's file");
    }

    /// A day on, two days back, and so on. At last it is where it was furthest: what waits for a time, such as a soak, waits for the clock.
    fn jump(self, stop: &AtomicBool) {
        for offset in ["+0", "-1d", "+1d", "-1d", "+0", "+1d"] {
            self.set(offset);
            storm::until(Duration::from_millis(700), stop);
        }
        storm::until(Duration::from_secs(600), stop);
    }
}

const SHORT: [&str; 4] = [
    "statement_timeout = '100ms'",
    "lock_timeout = '2ms'",
    "idle_in_transaction_session_timeout = '50ms'",
    "transaction_timeout = '80ms'",
];
const PATIENT: [&str; 4] = [
    "statement_timeout=0",
    "lock_timeout=0",
    "idle_in_transaction_session_timeout=0",
    "transaction_timeout=0",
];

#[test]
fn f8_a_full_disk_is_waited_for() {
    endure(&Weather {
        number: "f8",
        own_disk: true,
        storm: Some(storm::full_disk),
        manners: may_see(&["53100"]),
        ..FAIR
    });
}

#[test]
fn f9_timeouts_of_a_database_are_not_for_our_workers() {
    endure(&Weather {
        number: "f9",
        habits: &SHORT,
        own: &PATIENT,
        ..FAIR
    });
}

#[test]
fn f9_timeouts_of_a_database_only_end_a_call_of_run() {
    endure(&Weather {
        number: "f9c",
        habits: &SHORT,
        workers: false,
        manners: may_see(&["57014"]),
        own: &[
            "statement_timeout=2s",
            "transaction_timeout=0",
            "idle_in_transaction_session_timeout=0",
        ],
        ..FAIR
    });
}

#[test]
fn f10_a_storm_of_locks_is_weathered() {
    endure(&Weather {
        number: "f10",
        storm: Some(storm::locks),
        ..FAIR
    });
}

#[test]
fn f11_a_deadlock_costs_a_try_whoever_is_its_victim() {
    endure(&Weather {
        number: "f11",
        conf: &["deadlock_timeout = '10ms'"],
        storm: Some(storm::deadlocks),
        manners: may_see(&["40P01"]),
        ..FAIR
    });
}

#[test]
fn f12_where_serializable_is_the_habit_nothing_is_lost() {
    endure(&Weather {
        number: "f12",
        habits: &["default_transaction_isolation = 'serializable'"],
        manners: may_see(&["40001"]),
        ..FAIR
    });
}

#[test]
fn f12_where_reading_only_is_the_habit_workers_write() {
    endure(&Weather {
        number: "f12r",
        habits: &[
            "default_transaction_read_only = on",
            "default_transaction_deferrable = on",
            "default_transaction_isolation = 'repeatable read'",
        ],
        own: &["default_transaction_read_only=off"],
        manners: may_see(&["40001"]),
        ..FAIR
    });
}

#[test]
fn f12_a_call_of_run_in_a_session_that_is_used_to_old_snapshots_loses_nothing() {
    endure(&Weather {
        number: "f12c",
        habits: &["default_transaction_isolation = 'repeatable read'"],
        workers: false,
        manners: may_see(&["40001"]),
        ..FAIR
    });
}

#[test]
fn f13_few_workers_are_shared() {
    endure(&Weather {
        number: "f13",
        conf: &["max_worker_processes = 5"],
        ..FAIR
    });
}

#[test]
fn f13_where_locks_run_out_it_is_tried_again() {
    endure(&Weather {
        number: "f13l",
        conf: &["max_locks_per_transaction = 32"],
        storm: Some(storm::all_locks),
        manners: may_see(&["53200"]),
        ..FAIR
    });
}

#[test]
fn f14_a_clock_that_jumps_holds_nothing_up() {
    endure(&Weather {
        number: "f14",
        own_clock: true,
        ..FAIR
    });
}

#[test]
fn f15_a_prepared_transaction_on_the_table_is_waited_for() {
    endure(&Weather {
        number: "f15",
        storm: Some(storm::prepared),
        ..FAIR
    });
}

#[test]
fn f16_an_old_snapshot_is_waited_for() {
    endure(&Weather {
        number: "f16",
        storm: Some(storm::old_snapshot),
        ..FAIR
    });
}

#[test]
fn f17_ddl_of_people_is_refused_from_the_start_to_the_end() {
    endure(&Weather {
        number: "f17",
        storm: Some(people::ddl),
        ..FAIR
    });
}

#[test]
fn f18_a_database_may_get_another_name_meanwhile() {
    endure(&Weather {
        number: "f18",
        storm: Some(storm::another_name),
        ..FAIR
    });
}

#[test]
fn f20_our_tables_locked_by_somebody_are_waited_for() {
    endure(&Weather {
        number: "f20",
        storm: Some(storm::our_tables),
        ..FAIR
    });
}

#[test]
fn f22_commits_that_hang_without_a_standby_go_on_with_it() {
    endure(&Weather {
        number: "f22",
        storm: Some(storm::no_standby),
        // As long as nobody answers, and what it waited for before.
        manners: Manners {
            bound: Duration::from_secs(15),
            ..PATIENT_CLIENT
        },
        ..FAIR
    });
}

#[test]
fn f23_a_server_that_keeps_less_wal_and_prepares_nothing_from_now_on_goes_on() {
    endure(&Weather {
        number: "f23",
        later: &[
            "wal_level = minimal",
            "max_wal_senders = 0",
            "max_prepared_transactions = 0",
        ],
        ..FAIR
    });
}
