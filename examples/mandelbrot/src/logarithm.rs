//! The binary logarithm with a result that is defined to the last bit.
//!
//! `f64::log2` may differ between platforms in its last digits, and replicas are compared byte
//! for byte. This one takes the exponent out of the bits of the number and sums a series with
//! `+ - * /`, whose results IEEE 754 defines exactly.

/// `2 / ln 2`.
const TWO_OVER_LN_2: f64 = 2.885_390_081_777_926_8;

/// Number of terms of the series: their rest is below the precision of `f64`.
const TERMS: u32 = 16;

/// The binary logarithm of a positive, normal number, to about 15 digits.
pub(crate) fn log2(x: f64) -> f64 {
    const MANTISSA_BITS: u32 = 52;
    const MANTISSA: u64 = (1 << MANTISSA_BITS) - 1;
    const EXPONENT_OF_ONE: i64 = 1023;

    let bits = x.to_bits();
    let exponent = (bits >> MANTISSA_BITS) as i64 - EXPONENT_OF_ONE;
    let mantissa = f64::from_bits(1f64.to_bits() | (bits & MANTISSA));
    // ln(m) = 2 (s + s^3/3 + s^5/5 + ...) with s = (m - 1) / (m + 1), at most 1/3 here.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for term in (0..TERMS).rev() {
        sum = sum * square + 1.0 / f64::from(2 * term + 1);
    }
    exponent as f64 + TWO_OVER_LN_2 * s * sum
}

#[cfg(test)]
mod tests {
    use super::log2;

    #[test]
    fn powers_of_two_are_exact() {
        for exponent in -1022..=1023 {
            assert_eq!(log2(2f64.powi(exponent)), f64::from(exponent));
        }
    }

    #[test]
    fn agrees_with_the_platform() {
        let mut x = 1e-12;
        while x < 1e12 {
            assert!((log2(x) - x.log2()).abs() < 1e-13, "log2({x}) is {}", log2(x));
            x *= 1.000_37;
        }
    }
}
