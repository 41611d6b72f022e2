//! Chance: drawn from the seed that is journaled with each job.
//!
//! Every draw is named by what it decides (BLAKE3, keyed with the seed), so a replay, and a
//! second look at the same question, draw the same; and nobody without the seed can tell
//! what will be checked.

use crate::record::Seed;

/// What a draw decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Whether a trusted node may decide a unit alone.
    Trust,
    /// Whether a lease becomes a spot-check.
    SpotCheck,
    /// Which known result is checked.
    Known,
    /// Whether a result is audited as soon as it is there.
    EarlyAudit,
    /// Whether a lot is audited once more than a whole number says.
    Rounding,
    /// Which results of a lot are audited.
    Audit,
    /// Who may audit.
    Auditor,
}

/// A uniform number for one question: `number` and `detail` say which.
pub(crate) fn draw(seed: &Seed, purpose: Purpose, number: u64, detail: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new_keyed(&seed.0);
    hasher.update(&[purpose as u8]);
    hasher.update(&number.to_le_bytes());
    hasher.update(detail);
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}

/// Whether a draw falls into the first `part` of `whole`. Never, if `part` is none of it.
pub(crate) fn falls_into(draw: u64, part: u64, whole: u64) -> bool {
    // The high word of the product is uniform on 0..whole.
    let place = (u128::from(draw) * u128::from(whole)) >> 64;
    place < u128::from(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_and_named() {
        let seed = Seed([3; 32]);
        let hits = (0..10_000)
            .filter(|&number| falls_into(draw(&seed, Purpose::Trust, number, b""), 1, 10));
        let hits = hits.count();
        // Five standard deviations around 1000.
        assert!((850..1150).contains(&hits), "{hits}");
        let first = draw(&seed, Purpose::Trust, 1, b"a");
        assert_eq!(first, draw(&seed, Purpose::Trust, 1, b"a"));
        for other in [
            draw(&seed, Purpose::Audit, 1, b"a"),
            draw(&seed, Purpose::Trust, 2, b"a"),
            draw(&seed, Purpose::Trust, 1, b"b"),
            draw(&Seed([4; 32]), Purpose::Trust, 1, b"a"),
        ] {
            assert_ne!(first, other);
        }
        assert!(!falls_into(0, 0, 10));
        assert!(falls_into(u64::MAX, 10, 10));
    }
}
