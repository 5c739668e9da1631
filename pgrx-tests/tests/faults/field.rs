//! A cluster full of databases, each with a migration that stands at a point of its own: one crash strikes them all. What is struck has lost
//! one transaction, so it comes to its point again, and the next fault strikes it there.

use std::collections::BTreeMap;

use transmute_tests::cluster::Builder;
use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::{invariants, Cluster, Session, StopMode};

use super::cell::Cell;
use super::client::{Manners, HURRIED};
use super::clients::Clients;
use super::fault::Fault;
use super::figures::Figures;
use super::place::{base, picture, Pictures, Place};
use super::scenario::{self, Scenario};

const TEMPLATE: &str = "ground";

const CONF: [&str; 11] = [
    "transmute.retry_delay = '1s'",
    "shared_buffers = '32MB'",
    "max_connections = 300",
    "max_worker_processes = 150",
    "max_prepared_transactions = 100",
    "max_locks_per_transaction = 128",
    "max_parallel_maintenance_workers = 0",
    "max_logical_replication_workers = 0",
    "transmute.batch_target_ms = 1",
    "transmute.max_retries = 50",
    "autovacuum = off",
];

/// A cluster for many databases.
pub fn cluster(workers: bool, conf: &[&str]) -> Cluster {
    start(builder(workers, conf))
}

pub fn builder(workers: bool, conf: &[&str]) -> Builder {
    let mut builder = Cluster::builder().in_memory();
    for line in CONF.iter().chain(conf) {
        builder = builder.conf(line);
    }
    if !workers {
        builder = builder.without_preload();
    }
    builder
}

pub fn start(builder: Builder) -> Cluster {
    let cluster = builder.start();
    make_template(&cluster);
    cluster
}

pub struct Field<'c> {
    cluster: &'c Cluster,
    pictures: BTreeMap<&'static str, Pictures>,
    pub places: Vec<Place<'c>>,
}

impl<'c> Field<'c> {
    pub fn on(cluster: &'c Cluster) -> Field<'c> {
        Field {
            cluster,
            pictures: BTreeMap::new(),
            places: Vec::new(),
        }
    }

    pub fn add(&mut self, cell: &Cell, only: Option<Fault>) {
        let scenario = scenario::named(cell.scenario);
        let cluster = self.cluster;
        self.pictures
            .entry(scenario.name)
            .or_insert_with(|| make_base(cluster, scenario));
        self.places.push(Place::new(cluster, cell, only));
    }

    /// The databases are there now.
    pub fn move_to(&mut self, standby: &'c Cluster) {
        self.cluster = standby;
        for place in &mut self.places {
            let mut config = standby.config();
            config.dbname(place.database.name());
            place.moved = Some(config);
        }
    }

    pub fn configs(&self) -> Vec<postgres::Config> {
        self.places.iter().map(Place::config).collect()
    }

    pub fn clients(&self, manners: Manners) -> Clients {
        let shapes = self.places.iter().map(Place::shapes);
        Clients::start(self.configs().into_iter().zip(shapes).collect(), manners)
    }

    /// All migrations have ended, and nobody writes: what does not hold, besides what was found on the way.
    pub fn check(
        self,
        clients: Clients,
        figures: &mut Figures,
        mut found: Vec<String>,
    ) -> Vec<String> {
        let mut trails = Vec::new();
        for (place, clients) in self.places.iter().zip(clients.stop()) {
            for client in &clients {
                figures.statements += client.statements;
                figures.stall = figures.stall.max(client.stall);
            }
            let (faults, trail) = place.faults(clients, &self.pictures[place.scenario.name]);
            trails.push(trail);
            let name = place.database.name();
            found.extend(faults.into_iter().map(|line| format!("{name}: {line}")));
        }
        let verdicts = invariants::verify_independently(&trails);
        for (place, verdict) in self.places.iter().zip(verdicts) {
            match verdict {
                Ok(events) => figures.events += events,
                Err(fault) => found.push(format!("{}: I11, {fault}", place.database.name())),
            }
        }
        figures.lost += found.iter().filter(|line| line.contains(": I1, ")).count();
        let names = self.places.iter().map(|place| place.database.name());
        figures.failed += names
            .filter(|name| found.iter().any(|line| line.starts_with(*name)))
            .count();
        invariants::check_log(self.cluster);
        if found.is_empty() {
            // Its databases go with it.
            self.cluster.stop(StopMode::Immediate);
        } else {
            self.cluster.keep_and_explain();
        }
        found
    }
}

/// Strikes all `cells` with one fault after the other; what does not hold afterwards.
pub fn run(cells: &[Cell], faults: &[Fault]) -> (Figures, Vec<String>) {
    let mut workers = faults[0].has_workers();
    let cluster = cluster(workers, &[]);
    let mut field = Field::on(&cluster);
    // Places that are come to once are made anew for each fault; all are there from the beginning, so that clients write to them.
    for cell in cells {
        let met = faults.iter().filter(|f| cell.is_met_by(**f));
        if cell.once {
            met.for_each(|fault| field.add(cell, Some(*fault)));
        } else if met.count() > 0 {
            field.add(cell, None);
        }
    }
    let clients = field.clients(HURRIED);
    let mut figures = Figures::default();
    for (i, fault) in faults.iter().enumerate() {
        if workers != fault.has_workers() {
            workers = fault.has_workers();
            cluster.append_conf(&format!(
                "shared_preload_libraries = '{}'",
                if workers { "transmute" } else { "" }
            ));
            cluster.restart(StopMode::Fast);
            for place in &mut field.places {
                place.come_back();
            }
        }
        let here = |place: &&mut Place<'_>| place.is_met_by(*fault);
        for place in field.places.iter_mut().filter(here) {
            place.set_out(workers);
        }
        let mut victims = Vec::new();
        for place in field.places.iter_mut().filter(here) {
            place.arrive(*fault);
            victims.extend(&place.victims);
            figures.cells += 1;
        }
        if i == 0 {
            cluster.connect().exec("CHECKPOINT");
        }
        figures.kills += victims.len();
        strike(&cluster, *fault, &victims);
        for place in &mut field.places {
            let mut session = place.come_back();
            if place.only == Some(*fault) {
                place.go_on(&mut session);
            }
        }
    }
    let mut found = Vec::new();
    for place in &mut field.places {
        let mut session = place.come_back();
        place.go_on(&mut session);
    }
    for place in &mut field.places {
        found.extend(place.end(workers).err());
    }
    let found = field.check(clients, &mut figures, found);
    // One that failed may have failed under each.
    figures.failed = figures.cells.min(figures.failed * faults.len());
    (figures, found)
}

/// Strikes, and waits until the server is there again.
fn strike(cluster: &Cluster, fault: Fault, victims: &[i32]) {
    let starts = || {
        let log = std::fs::read_to_string(cluster.log_path()).unwrap_or_default();
        log.matches("database system is ready to accept connections")
            .count()
    };
    let before = starts();
    fault.strike(cluster, victims);
    if matches!(fault, Fault::Worker | Fault::Caller) && !victims.is_empty() {
        wait_until_seen("the server to restart", PATIENCE, || match starts() {
            n if n > before => Ok(()),
            n => Err(n),
        });
    }
}

/// A database with the extension, to be copied.
fn make_template(cluster: &Cluster) {
    cluster
        .connect()
        .exec(&format!("CREATE DATABASE {TEMPLATE}"));
    let mut config = cluster.config();
    config.dbname(TEMPLATE);
    Session::open(config).exec("CREATE EXTENSION transmute; CREATE EXTENSION amcheck");
    close(cluster, TEMPLATE);
}

/// Whoever looks for work there would be in the way of its copies.
fn close(cluster: &Cluster, database: &str) {
    cluster.connect().batch(&[
        &format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"),
        &format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{database}'"),
    ]);
}

/// The database that its cells copy, and what the plain statement would make of it.
fn make_base(cluster: &Cluster, scenario: &Scenario) -> Pictures {
    let base = base(scenario.name);
    cluster.connect().exec(&format!(
        "CREATE DATABASE {base} TEMPLATE {TEMPLATE} STRATEGY file_copy"
    ));
    let mut config = cluster.config();
    config.dbname(&base);
    let mut session = Session::open(config);
    session.exec(scenario.make);
    let before = picture(&mut session);
    session.exec("BEGIN");
    session.exec(scenario.plain);
    let after = picture(&mut session);
    session.exec("ROLLBACK");
    drop(session);
    close(cluster, &base);
    Pictures { before, after }
}
