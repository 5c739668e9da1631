//! Identifiers that sort by the time of their making.

use pgrx::pg_sys;

/// A new one, of the time now.
pub fn new() -> String {
    let mut random = [0u8; 16];
    // SAFETY: writes so many bytes; without a source of randomness it says so, and the clock alone has to do.
    let strong = unsafe { pg_sys::pg_strong_random(random.as_mut_ptr().cast(), random.len()) };
    // SAFETY: plain read of the clock, microseconds since 2000.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    if !strong {
        random[..8].copy_from_slice(&now.to_ne_bytes());
    }
    let since_1970 = now / 1000 + EPOCH_MS;
    ulid::Ulid::from_parts(
        u64::try_from(since_1970).unwrap_or(0),
        u128::from_ne_bytes(random),
    )
    .to_string()
}

/// From 1970 to 2000, milliseconds.
const EPOCH_MS: i64 = 946_684_800_000;
