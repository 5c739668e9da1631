//! F7: the primary is gone, and a standby takes its place, whatever every migration was doing.

use transmute_tests::wait::PATIENCE;
use transmute_tests::Cluster;

use super::cell::{Cell, OTHERS, REWRITES};
use super::client::HURRIED;
use super::clients::Clients;
use super::fault::Fault;
use super::field::{self, Field};
use super::figures::Figures;
use super::sample;
use super::weather::ALL;

#[test]
fn f7_a_standby_goes_on_where_its_primary_was() {
    if !sample::is_drawn("f7", &ALL) {
        return;
    }
    let cells: Vec<Cell> = REWRITES.iter().chain(&OTHERS).copied().collect();
    for cells in sample::journeys(&cells, "f7").chunks(24) {
        promote(cells);
    }
}

fn promote(cells: &[Cell]) {
    let primary = field::cluster(true, &[]);
    let standby = Cluster::builder().in_memory().start_standby_of(&primary);
    let mut field = Field::on(&primary);
    cells.iter().for_each(|cell| field.add(cell, None));
    let clients = field.clients(HURRIED);
    for place in &mut field.places {
        place.set_out(true);
    }
    let mut figures = Figures::default();
    for place in &mut field.places {
        place.arrive(Fault::Postmaster);
        figures.cells += 1;
        figures.kills += place.victims.len();
    }
    // What the standby has not got is lost, of the application as of us: here it has all.
    let clients = clients.stop();
    let end: String = primary
        .connect()
        .scalar("SELECT pg_current_wal_insert_lsn()::text");
    let mut session = standby.connect();
    session.wait_for(
        &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"),
        "t",
        PATIENCE,
    );
    primary.kill9();
    session.exec("SELECT pg_promote()");
    field.move_to(&standby);
    let clients = Clients::go_on(clients, field.configs());
    let mut found = Vec::new();
    for place in &mut field.places {
        let mut session = place.come_back();
        place.go_on(&mut session);
    }
    for place in &mut field.places {
        found.extend(place.end(true).err());
    }
    let found = field.check(clients, &mut figures, found);
    figures.report("f7");
    assert!(found.is_empty(), "{found:#?}");
}
