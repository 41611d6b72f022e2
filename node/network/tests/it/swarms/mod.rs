//! Real swarms beside the models: rust-libp2p's gossipsub and Kademlia with our settings, in one
//! process over memory transport, and the simulator's models with the same parameters.
//!
//! The models promise copies per delivery, degrees of meshes, hops, fillings of buckets, and
//! questions per lookup. Real swarms have clocks and entropy of their own, so each measured value
//! is a sample, and is compared with the spread of the model over seeds.
//!
//! Small crowds run with all tests. `make swarms` runs the large ones and prints measured beside
//! modelled; `DOCKERCOMP_SWARMS` says how many swarms, `DOCKERCOMP_CROWDS` how often.
//!
//! Hops of Kademlia's walks are not compared: libp2p does not tell who named whom.

mod crowd;
mod gossip;
mod kademlia;

use std::time::Duration;

use dockercomp_simulations::overlay::Report;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(300);

/// Mean and half the 95 % confidence interval.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    mean: f64,
    /// Infinite for a single sample.
    half: f64,
    /// Standard deviation of one sample.
    deviation: f64,
}

impl Estimate {
    fn of(samples: &[f64]) -> Self {
        let n = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / n;
        let square = |sample: &f64| (sample - mean) * (sample - mean);
        let deviation = (samples.iter().map(square).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
        // Student's t at 97.5 %, for 1 to 9 degrees of freedom, and 2.1 beyond.
        let t = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26];
        let t = t.get(samples.len().wrapping_sub(2)).copied().unwrap_or(2.1);
        let half = if samples.len() < 2 { f64::INFINITY } else { t * deviation / n.sqrt() };
        Self { mean, half, deviation }
    }
}

/// One metric of real crowds beside the same of the model.
#[derive(Debug)]
struct Comparison {
    name: String,
    real: Estimate,
    model: Estimate,
}

impl Comparison {
    /// Pairs the metrics that the real crowds have with those of the model.
    fn all(real: &[Vec<(String, f64)>], model: &[Report]) -> Vec<Self> {
        let names = real[0].iter().map(|(name, _)| name.clone());
        names
            .enumerate()
            .map(|(place, name)| {
                let samples: Vec<f64> = real.iter().map(|crowd| crowd[place].1).collect();
                let modelled: Vec<f64> = model
                    .iter()
                    .map(|report| report.metric(&name).expect("the model measures it too"))
                    .collect();
                Self { name, real: Estimate::of(&samples), model: Estimate::of(&modelled) }
            })
            .collect()
    }

    fn off(&self) -> f64 {
        (self.real.mean - self.model.mean).abs() / self.model.mean.abs().max(1e-9)
    }

    fn print(&self) {
        let Self { name, real, model } = self;
        println!(
            "{name:24} real {:9.3} ± {:<8.3} model {:9.3} ± {:<8.3} off {:5.1} %",
            real.mean,
            real.half,
            model.mean,
            model.half,
            100.0 * self.off(),
        );
    }

    /// Within so much of the model, or within four deviations of what a run of it may give.
    #[track_caller]
    fn assert_within(&self, share: f64) {
        let spread = 4.0 * self.model.deviation;
        let off = (self.real.mean - self.model.mean).abs();
        assert!(off <= share * self.model.mean.abs() || off <= spread, "{self:?}");
    }
}

/// Waits until something is so.
async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        ticks.tick().await;
    }
}

fn number(variable: &str, default: usize) -> usize {
    let set = std::env::var(variable).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

/// Resident memory of this process in megabytes.
fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: f64 = status.split(' ').nth(1).expect("the second field").parse().expect("pages");
    pages * 4096.0 / 1e6
}
