//! Which of the many faults a run of CI sees: drawn by a seed that is printed. `make faults` sees them all.

use std::io::Write;
use std::sync::OnceLock;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::SeedableRng;

/// How many faults a run draws, and how many journeys each of them meets.
const FAULTS: usize = 3;
const JOURNEYS: usize = 6;

fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("FAULT_SEED").ok();
        let seed = given.map_or_else(
            || u64::from(std::process::id()),
            |text| text.parse().expect("FAULT_SEED is a number"),
        );
        // Not caught by the test's harness: also where all goes well.
        let _ = writeln!(std::io::stderr(), "FAULT_SEED={seed}");
        seed
    })
}

fn drawn<T: Copy>(all: &[T], count: usize, salt: u64) -> Vec<T> {
    let mut all = all.to_vec();
    all.shuffle(&mut StdRng::seed_from_u64(seed().wrapping_add(salt)));
    all.truncate(count);
    all
}

/// `FAULT=f9,f10` asks for these, `FAULT=each` for all.
pub fn is_drawn(number: &str, all: &[&str]) -> bool {
    match std::env::var("FAULT").unwrap_or_default().as_str() {
        "" => drawn(all, FAULTS, 0).contains(&number),
        "each" => true,
        numbers => numbers.split(',').any(|one| one == number),
    }
}

pub fn journeys<T: Copy>(all: &[T], number: &str) -> Vec<T> {
    match std::env::var_os("FAULT") {
        Some(_) => all.to_vec(),
        None => drawn(all, JOURNEYS, number.bytes().map(u64::from).sum()),
    }
}
