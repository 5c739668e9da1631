//! Applications in every database of a field: they write table `t` in every way that applications have, and know what they have committed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{Client, Manners};
use super::shape::Shapes;

/// Between two acts of a thread.
const PAUSE: Duration = Duration::from_millis(2);
/// Clients of a database, each in a thread of its own with those of the other databases: the old application and the new one.
const CLIENTS: usize = 2;

/// `CLIENTS=4`: more of them.
fn count() -> usize {
    match std::env::var("CLIENTS").map(|text| text.parse()) {
        Ok(count) => count.expect("CLIENTS is 1, 2, 4 or 8"),
        Err(_) => CLIENTS,
    }
}

pub struct Clients {
    stop: Arc<AtomicBool>,
    /// The first clients of all databases, the second ones, and so on.
    threads: Vec<JoinHandle<Vec<Client>>>,
}

impl Clients {
    /// With the shapes of each database's table.
    pub fn start(places: Vec<(postgres::Config, Shapes)>, manners: Manners) -> Clients {
        let count = count();
        let of = |number| {
            let client = |(config, shapes): &(postgres::Config, Shapes)| {
                Client::new(config.clone(), number, count, *shapes, manners)
            };
            places.iter().map(client).collect()
        };
        Clients::run((0..count).map(of).collect())
    }

    /// The same ones in other places, with what they know.
    pub fn go_on(databases: Vec<Vec<Client>>, configs: Vec<postgres::Config>) -> Clients {
        let mut threads: Vec<Vec<Client>> = (0..count()).map(|_| Vec::new()).collect();
        for (clients, config) in databases.into_iter().zip(configs) {
            for (mut client, thread) in clients.into_iter().zip(&mut threads) {
                client.config = config.clone();
                thread.push(client);
            }
        }
        Clients::run(threads)
    }

    fn run(threads: Vec<Vec<Client>>) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let work = |mut clients: Vec<Client>| {
            let stopped = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    for client in &mut clients {
                        client.act();
                        std::thread::sleep(PAUSE);
                    }
                }
                clients
            })
        };
        let threads = threads.into_iter().map(work).collect();
        Clients { stop, threads }
    }

    /// Those of each database.
    pub fn stop(self) -> Vec<Vec<Client>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut databases: Vec<Vec<Client>> = Vec::new();
        for thread in self.threads {
            let clients = thread.join().expect("the clients");
            databases.resize_with(clients.len(), Vec::new);
            for (mut client, database) in clients.into_iter().zip(&mut databases) {
                client.leave();
                database.push(client);
            }
        }
        databases
    }
}
