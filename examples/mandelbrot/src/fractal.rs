//! The Mandelbrot set itself: how a point of the plane escapes.
//!
//! A point `c` is iterated as `z -> z * z + c`. Beside `z` goes its derivative by `c`, which
//! tells in which direction the landscape of escape times falls, and so lets
//! [`crate::palette`] cast light on it.

use crate::logarithm::log2;

/// The middle of the picture: a "Julia island" deep in the Seahorse Valley, the last picture of
/// a well-known zoom into the set.
pub(crate) const CENTRE: (f64, f64) = (-0.743_643_887_037_151, 0.131_825_904_205_330);

/// The width of the picture in the plane. `f64` still has about a hundred numbers for each pixel
/// of a picture of 4K.
pub(crate) const SPAN: f64 = 5.13e-11;

/// Square of the distance at which a point has escaped. Much more than the necessary 4, so
/// that the fractional part of the escape time has no visible steps.
const ESCAPED: f64 = 65_536.0;

/// Binary logarithm of [`ESCAPED`].
const LOG2_ESCAPED: f64 = 16.0;

/// How a point outside of the set left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Escape {
    /// Number of iterations, made continuous.
    pub(crate) time: f64,
    /// Direction of the slope at this point, of length 1.
    pub(crate) slope: (f64, f64),
}

/// Iterates the point; `None` if it is still near after `iterations`.
pub(crate) fn escape((c_re, c_im): (f64, f64), iterations: u32) -> Option<Escape> {
    let (mut re, mut im) = (0.0, 0.0);
    let (mut d_re, mut d_im) = (0.0, 0.0);
    for iteration in 0..iterations {
        let (re_square, im_square) = (re * re, im * im);
        let distance = re_square + im_square;
        if distance > ESCAPED {
            // One iteration squares the distance, so the logarithm of its logarithm grows by 1.
            let fraction = log2(log2(distance) / LOG2_ESCAPED);
            let slope = direction((re * d_re + im * d_im, im * d_re - re * d_im));
            return Some(Escape { time: f64::from(iteration) + 1.0 - fraction, slope });
        }
        let d_next = 2.0 * (re * d_re - im * d_im) + 1.0;
        d_im = 2.0 * (re * d_im + im * d_re);
        d_re = d_next;
        im = 2.0 * (re * im) + c_im;
        re = re_square - im_square + c_re;
    }
    None
}

/// The vector with the same direction and length 1. A zero vector gives NaN, which
/// [`crate::palette`] shows as black.
fn direction((x, y): (f64, f64)) -> (f64, f64) {
    let length = (x * x + y * y).sqrt();
    (x / length, y / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_never_escape() {
        for member in [(0.0, 0.0), (-1.0, 0.0), (-2.0, 0.0), (0.25, 0.0), (-0.1, 0.1)] {
            assert_eq!(escape(member, 10_000), None, "{member:?}");
        }
    }

    /// The escape time has no jump where the number of whole iterations changes.
    #[test]
    fn escape_time_is_continuous() {
        let step = 1e-4;
        let times: Vec<f64> = (0..20_000)
            .map(|i| escape((0.5 + f64::from(i) * step, 0.1), 1000).expect("outside").time)
            .collect();
        for pair in times.windows(2) {
            let change = pair[1] - pair[0];
            assert!(change < 0.0 && change > -0.25, "{} after {}", pair[1], pair[0]);
        }
    }

    /// The slope is the gradient of the escape time, measured here by small differences.
    #[test]
    fn slope_points_down_the_escape_time() {
        for c in [(0.5, 0.6), (-1.5, 0.4), (0.1, -1.2), (-0.9, -0.5)] {
            let time = |dx: f64, dy: f64| escape((c.0 + dx, c.1 + dy), 1000).expect("outside").time;
            let h = 1e-6;
            let gradient = direction((time(-h, 0.0) - time(h, 0.0), time(0.0, -h) - time(0.0, h)));
            let slope = escape(c, 1000).expect("outside").slope;
            let cosine = gradient.0 * slope.0 + gradient.1 * slope.1;
            assert!(cosine > 0.999, "slope {slope:?}, gradient {gradient:?} at {c:?}");
        }
    }
}
