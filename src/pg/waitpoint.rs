//! Named points at which tests can stop the code: a shared advisory lock, taken and given back. A test
//! that holds it exclusively stops us exactly there. Empty without the cargo feature `waitpoints`.

/// First key of the advisory lock; the second is hashtext(name).
#[cfg(feature = "waitpoints")]
const CLASS: i32 = 74_616;

/// Waits while a test holds `name`. Inside a transaction.
#[cfg(feature = "waitpoints")]
pub fn reach(name: &str) -> crate::error::Result<()> {
    super::spi::execute(
        "SELECT pg_catalog.set_config('lock_timeout', '0', true), \
         pg_catalog.pg_advisory_lock_shared($1, pg_catalog.hashtext($2)), \
         pg_catalog.pg_advisory_unlock_shared($1, pg_catalog.hashtext($2))",
        &[CLASS.into(), name.into()],
    )?;
    Ok(())
}

#[cfg(not(feature = "waitpoints"))]
#[inline(always)]
pub fn reach(_name: &str) -> crate::error::Result<()> {
    Ok(())
}
