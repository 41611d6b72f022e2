//! Colours: from escape times to light.
//!
//! Colours are mixed as amounts of light, not as the numbers in the file: a number is about
//! the square root of the light it stands for, and a square root has a defined result on every
//! platform where the exact curve of sRGB (a power) has not.

use crate::fractal::Escape;
use crate::logarithm::log2;

/// Amounts of red, green and blue light, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Light([f64; 3]);

/// The members of the set.
const MEMBER: Light = Light([0.0, 0.0, 0.0]);

/// A ring of colours, equally far from each other; the last is followed by the first.
const RING: [[u8; 3]; 8] = [
    [4, 10, 60],
    [14, 60, 150],
    [50, 140, 215],
    [190, 230, 245],
    [255, 250, 225],
    [255, 190, 50],
    [190, 80, 10],
    [50, 10, 40],
];

/// How many times the ring is passed while the escape time doubles.
const RINGS_PER_DOUBLING: f64 = 2.5;

/// Where the ring begins.
const OFFSET: f64 = 0.6;

/// Where the light comes from: the upper left. Of length 1.
const LIGHT_FROM: (f64, f64) = (-0.6, 0.8);

/// How high the light stands; the higher, the flatter the landscape looks.
const LIGHT_HEIGHT: f64 = 1.6;

/// The light of a point: how it escaped, or `None` for a member of the set.
pub(crate) fn light(escape: Option<Escape>) -> Light {
    let Some(Escape { time, slope }) = escape else { return MEMBER };
    // Escape times below 1 exist (far outside of the set); their logarithm would be negative.
    let time = if time < 1.0 { 1.0 } else { time };
    let position = log2(time) * RINGS_PER_DOUBLING + OFFSET;
    let facing = slope.0 * LIGHT_FROM.0 + slope.1 * LIGHT_FROM.1;
    let shade = (facing + LIGHT_HEIGHT) / (1.0 + LIGHT_HEIGHT);
    ring(position).scaled(shade)
}

/// The colour at a position of the ring; whole numbers are the beginning.
fn ring(position: f64) -> Light {
    let steps = RING.len();
    let along = position * steps as f64;
    let before = along as usize;
    let part = along - before as f64;
    let (from, to) = (Light::of(RING[before % steps]), Light::of(RING[(before + 1) % steps]));
    from.scaled(1.0 - part).plus(to.scaled(part))
}

impl Light {
    /// The light that a pixel of these numbers gives.
    fn of(numbers: [u8; 3]) -> Self {
        Self(numbers.map(|number| {
            let share = f64::from(number) / 255.0;
            share * share
        }))
    }

    /// The sum of two lights.
    pub(crate) fn plus(self, Self([r, g, b]): Self) -> Self {
        Self([self.0[0] + r, self.0[1] + g, self.0[2] + b])
    }

    /// The light, stronger or weaker.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self(self.0.map(|amount| amount * factor))
    }

    /// The numbers of the nearest pixel.
    pub(crate) fn pixel(self) -> [u8; 3] {
        // The conversion cuts off what is above 255.
        self.0.map(|amount| (amount.sqrt() * 255.0 + 0.5) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_the_way_to_light_and_back() {
        for number in 0..=255 {
            let numbers = [number, 255 - number, number / 2];
            assert_eq!(Light::of(numbers).pixel(), numbers);
        }
    }

    #[test]
    fn the_ring_is_closed() {
        for (index, &colour) in RING.iter().enumerate() {
            let position = index as f64 / RING.len() as f64;
            assert_eq!(ring(position).pixel(), colour);
            assert_eq!(ring(position + 3.0).pixel(), colour);
        }
        let half = ring(7.5 / 8.0);
        assert_eq!(half, Light::of(RING[7]).plus(Light::of(RING[0])).scaled(0.5));
    }

    #[test]
    fn light_falls_from_the_upper_left() {
        let at = |slope| light(Some(Escape { time: 300.0, slope })).0[2];
        let (lit, side, dark) = (at((-0.6, 0.8)), at((0.8, 0.6)), at((0.6, -0.8)));
        assert!(lit > side && side > dark && dark > 0.0, "{lit} {side} {dark}");
        assert_eq!(light(None).pixel(), [0, 0, 0]);
    }
}
