//! Pixels: every one is the mean light of four points of the plane.
//!
//! A pixel depends on its place in the whole picture and on nothing else, so it is the same
//! in every tiling.

use crate::fractal::{CENTRE, SPAN, escape};
use crate::palette::{Light, light};
use crate::picture::{Picture, Rectangle};

/// Where the four points lie in a pixel whose sides are 1.
const POINTS: [(f64, f64); 4] = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)];

/// Computes the pixels of a rectangle, row by row, three bytes each.
pub(crate) fn render(picture: &Picture, rectangle: Rectangle) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(rectangle.bytes());
    for y in rectangle.y..rectangle.y + rectangle.height {
        for x in rectangle.x..rectangle.x + rectangle.width {
            pixels.extend_from_slice(&pixel(picture, x, y));
        }
    }
    pixels
}

fn pixel(picture: &Picture, x: u32, y: u32) -> [u8; 3] {
    let step = SPAN / f64::from(picture.width());
    let right = f64::from(x) - f64::from(picture.width()) / 2.0;
    let down = f64::from(y) - f64::from(picture.height()) / 2.0;
    let mut sum = Light::default();
    for (dx, dy) in POINTS {
        let c = (CENTRE.0 + (right + dx) * step, CENTRE.1 - (down + dy) * step);
        sum = sum.plus(light(escape(c, picture.iterations())));
    }
    sum.scaled(1.0 / POINTS.len() as f64).pixel()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact bytes of a small picture: the same for every platform, build profile and
    /// compiler. If this fails, volunteers with the old and the new program would disagree.
    #[test]
    fn bytes_are_what_they_always_were() {
        let picture = Picture::new((16, 12), (1, 1), 20_000).expect("a valid picture");
        let pixels = render(&picture, picture.bounds());
        assert_eq!(fnv1a(&pixels), 0xd33f_1a33_fbb6_44af, "{pixels:?}");
    }

    /// The FNV-1a hash: enough to notice a change, and ten lines shorter than a better one.
    fn fnv1a(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}
