//! How far apart two numbers may be.

/// Two numbers are close if they differ by no more than
/// `absolute + relative * max(|a|, |b|)`: NumPy's `isclose`, made symmetric.
/// Not-a-number is close to itself, an infinity only to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    relative: f64,
    absolute: f64,
}

/// Why a tolerance was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToleranceError {
    /// A relative tolerance of 1 or more calls every two numbers of one sign close.
    #[error("a relative tolerance must be at least 0 and below 1")]
    Relative,
    /// A distance cannot be negative or endless.
    #[error("an absolute tolerance must be finite and at least 0")]
    Absolute,
}

impl Tolerance {
    /// A tolerance.
    ///
    /// # Errors
    /// See [`ToleranceError`].
    pub fn new(relative: f64, absolute: f64) -> Result<Self, ToleranceError> {
        if !(0.0..1.0).contains(&relative) {
            return Err(ToleranceError::Relative);
        }
        if !(0.0..f64::INFINITY).contains(&absolute) {
            return Err(ToleranceError::Absolute);
        }
        Ok(Self { relative, absolute })
    }

    /// Whether two numbers are close.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "equal infinities have no distance")]
    pub fn close(&self, a: f64, b: f64) -> bool {
        if a == b || (a.is_nan() && b.is_nan()) {
            return true;
        }
        let distance = (a - b).abs();
        distance.is_finite() && distance <= self.absolute + self.relative * a.abs().max(b.abs())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_tolerances_add_up() {
        let tolerance = Tolerance::new(1e-3, 1e-9).expect("a tolerance");
        assert!(tolerance.close(1000.0, 1000.9));
        assert!(Tolerance::new(0.1, 1.0).expect("a tolerance").close(10.0, 11.9));
        assert!(!tolerance.close(1000.0, 1001.1));
        assert!(tolerance.close(0.0, 1e-9), "near zero only the absolute one helps");
        assert!(!tolerance.close(0.0, 2e-9));
    }

    #[test]
    fn special_numbers_are_close_to_themselves_only() {
        let tolerance = Tolerance::new(0.5, 1e300).expect("a tolerance");
        assert!(tolerance.close(f64::NAN, f64::NAN));
        assert!(tolerance.close(f64::INFINITY, f64::INFINITY));
        assert!(!tolerance.close(f64::INFINITY, f64::NEG_INFINITY));
        assert!(!tolerance.close(f64::INFINITY, f64::MAX));
        assert!(!tolerance.close(f64::NAN, 0.0));
        assert!(tolerance.close(0.0, -0.0));
    }

    #[test]
    fn senseless_tolerances_are_refused() {
        assert_eq!(Tolerance::new(1.0, 0.0), Err(ToleranceError::Relative));
        assert_eq!(Tolerance::new(-0.1, 0.0), Err(ToleranceError::Relative));
        assert_eq!(Tolerance::new(f64::NAN, 0.0), Err(ToleranceError::Relative));
        assert_eq!(Tolerance::new(0.0, f64::INFINITY), Err(ToleranceError::Absolute));
        assert_eq!(Tolerance::new(0.0, -1.0), Err(ToleranceError::Absolute));
    }

    proptest! {
        #[test]
        fn closeness_is_symmetric(a: f64, b: f64, relative in 0.0..1.0, absolute in 0.0..1e9) {
            let tolerance = Tolerance::new(relative, absolute).expect("a tolerance");
            prop_assert_eq!(tolerance.close(a, b), tolerance.close(b, a));
            prop_assert!(tolerance.close(a, a));
        }
    }
}
