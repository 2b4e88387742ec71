//! Places where a test lets the process die, to see that nothing is lost. They exist only with the feature `failpoints`, which only
//! tests ask for.

/// Dies here, without any cleaning up, if the variable `RLAIF_DIE_AT` is `name:n` and this is the n-th time that the process comes to
/// the place `name`.
#[cfg(feature = "failpoints")]
pub fn hit(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static DIE_AT: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("RLAIF_DIE_AT").ok()?;
        let (name, times) = text.rsplit_once(':')?;
        Some((name.to_owned(), AtomicU64::new(times.parse().ok()?)))
    });
    if let Some((place, left)) = &*DIE_AT
        && place == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}

/// Nothing happens here.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) {}
