//! A run's story as a timeline, in the trace event format (JSON) that <https://ui.perfetto.dev>
//! and Chromium's `about:tracing` open.
//!
//! Hosts are processes; what runs or is fetched on one of them lies in as many lanes as are needed
//! at one time. What the coordinator decides is marked in a process of its own. Times are virtual.
//!
//! Lines of the story that are not about hosts or accepted units are left out. A replica that was
//! under way when its host crashed ends there.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

/// The coordinator's process; hosts follow.
const COORDINATOR: u64 = 0;

/// One entry of the format: a slice (`X`), a mark (`i`) or a name (`M`).
#[derive(Debug, Serialize)]
struct TraceEvent {
    name: String,
    ph: char,
    /// Microseconds.
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    pid: u64,
    tid: usize,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

/// What a host does for a replica, until it is over.
#[derive(Debug)]
struct Open {
    name: String,
    since: u64,
    lane: usize,
}

/// Gathers a story line by line. See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    events: Vec<TraceEvent>,
    /// What is under way, by host and replica.
    open: BTreeMap<(u64, u64), Open>,
    /// Hosts that are off, since when.
    off: BTreeMap<u64, u64>,
    now: u64,
}

impl Timeline {
    /// Takes the next line: seconds, what, and three numbers. Remarks are not for timelines.
    pub(crate) fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let now = words.next().and_then(|time| time.parse::<f64>().ok());
        let (Some(now), Some(what)) = (now, words.next()) else { return };
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let &[first, second, third] = numbers.as_slice() else { return };
        // Exact: microseconds of many years lie below 2^53.
        self.now = (now * 1e6).round() as u64;
        match what {
            "Granted" => self.begin(first, second, format!("fetch for unit {third}")),
            "Started" => {
                self.end(first, second);
                self.begin(first, second, format!("run unit {third}"));
            }
            "Finished" => {
                self.end(first, second);
                if third == 0 {
                    self.mark(first, format!("replica {second} failed"));
                }
            }
            "Aborted" => self.end(first, second),
            "HostReturns" => {
                if let Some(since) = self.off.remove(&first) {
                    self.slice("off".to_owned(), since, first, 0, Value::Null);
                }
            }
            "HostCrashes" | "HostDeparts" => {
                self.end_all(first);
                self.off.insert(first, self.now);
            }
            "JobSubmitted" | "JobCancelled" | "JobEnded" => {
                self.decided(format!("job {first}: {what}"));
            }
            "Accepted" => self.decided(format!("job {first}: unit {second} accepted")),
            "CoordinatorCrashes" | "CoordinatorReturns" | "FaultsEnd" => {
                self.decided(what.to_owned());
            }
            _ => {}
        }
    }

    /// The whole, with names of processes.
    pub(crate) fn finish(mut self) -> Value {
        let open: Vec<(u64, u64)> = self.open.keys().copied().collect();
        open.into_iter().for_each(|(host, replica)| self.end(host, replica));
        for (host, since) in std::mem::take(&mut self.off) {
            self.slice("off".to_owned(), since, host, 0, Value::Null);
        }
        let mut processes: Vec<u64> = self.events.iter().map(|event| event.pid).collect();
        processes.sort_unstable();
        processes.dedup();
        for pid in processes {
            let name = match pid.checked_sub(1) {
                None => "coordinator".to_owned(),
                Some(host) => format!("host {host}"),
            };
            self.events.push(TraceEvent {
                name: "process_name".to_owned(),
                ph: 'M',
                ts: 0,
                dur: None,
                pid,
                tid: 0,
                args: json!({ "name": name }),
            });
        }
        json!({ "traceEvents": self.events, "displayTimeUnit": "ms" })
    }

    fn begin(&mut self, host: u64, replica: u64, name: String) {
        let of_host = self.open.range((host, 0)..=(host, u64::MAX));
        let taken: Vec<usize> = of_host.map(|(_, open)| open.lane).collect();
        // Lane 0 is for the host itself.
        let lane = (1..).find(|lane| !taken.contains(lane)).expect("lanes do not end");
        self.open.insert((host, replica), Open { name, since: self.now, lane });
    }

    fn end(&mut self, host: u64, replica: u64) {
        if let Some(Open { name, since, lane }) = self.open.remove(&(host, replica)) {
            self.slice(name, since, host, lane, json!({ "replica": replica }));
        }
    }

    fn end_all(&mut self, host: u64) {
        let of_host = self.open.range((host, 0)..=(host, u64::MAX));
        let replicas: Vec<u64> = of_host.map(|((_, replica), _)| *replica).collect();
        replicas.into_iter().for_each(|replica| self.end(host, replica));
    }

    fn slice(&mut self, name: String, since: u64, host: u64, tid: usize, args: Value) {
        let dur = Some(self.now - since);
        self.events.push(TraceEvent { name, ph: 'X', ts: since, dur, pid: host + 1, tid, args });
    }

    fn mark(&mut self, host: u64, name: String) {
        self.instant(name, host + 1);
    }

    fn decided(&mut self, name: String) {
        self.instant(name, COORDINATOR);
    }

    fn instant(&mut self, name: String, pid: u64) {
        let ts = self.now;
        self.events.push(TraceEvent {
            name,
            ph: 'i',
            ts,
            dur: None,
            pid,
            tid: 0,
            args: Value::Null,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::world::run_told;

    fn timeline(story: &str) -> Vec<Value> {
        let mut timeline = Timeline::default();
        story.lines().for_each(|line| timeline.line(line));
        let mut whole = timeline.finish();
        let events: Vec<Value> = serde_json::from_value(whole["traceEvents"].take()).unwrap();
        events.into_iter().filter(|event| event["ph"] != "M").collect()
    }

    #[test]
    fn a_replica_is_fetched_and_run_in_a_lane_of_its_host() {
        let story = "1.0 JobSubmitted 0 0 0\n 2.0 Granted 3 7 1\n 2.5 Granted 3 8 4\n\
                     3.0 Started 3 7 1\n 4.0 Finished 3 7 1\n 5.0 HostCrashes 3 1 0\n\
                     6.0 a remark\n 9.0 HostReturns 3 0 0";
        let slice = |name, ts: u64, dur: u64, tid, args| json!({"name": name, "ph": "X", "ts": ts, "dur": dur, "pid": 4, "tid": tid, "args": args});
        let expected = [
            json!({"name": "job 0: JobSubmitted", "ph": "i", "ts": 1_000_000, "pid": 0, "tid": 0}),
            slice("fetch for unit 1", 2_000_000, 1_000_000, 1, json!({"replica": 7})),
            slice("run unit 1", 3_000_000, 1_000_000, 1, json!({"replica": 7})),
            slice("fetch for unit 4", 2_500_000, 2_500_000, 2, json!({"replica": 8})),
        ];
        let told = timeline(story);
        assert_eq!(told[..4], expected);
        assert_eq!((&told[4]["name"], &told[4]["dur"]), (&json!("off"), &json!(4_000_000)));
    }

    /// Every drawn world can be drawn: whatever runs is told once, and lanes do not overlap.
    #[test]
    fn what_runs_in_a_drawn_world_is_there_and_does_not_overlap() {
        for seed in 1..6 {
            let mut whole = Timeline::default();
            let mut started = 0;
            let outcome = run_told(&Scenario::fuzz(seed), seed, &mut |line| {
                started += usize::from(line.contains(" Started "));
                whole.line(line);
            });
            assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
            let events: Vec<Value> =
                serde_json::from_value(whole.finish()["traceEvents"].take()).unwrap();
            let mut lanes: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
            let mut runs = 0;
            for event in events.iter().filter(|event| event["ph"] == "X") {
                let number = |key: &str| event[key].as_u64().unwrap();
                runs += usize::from(event["name"].as_str().unwrap().starts_with("run unit"));
                let lane = lanes.entry((number("pid"), number("tid"))).or_default();
                lane.push((number("ts"), number("ts") + number("dur")));
            }
            assert!(started > 0 && runs == started, "{runs} of {started}");
            for lane in lanes.values_mut() {
                lane.sort_unstable();
                assert!(lane.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{lane:?}");
            }
        }
    }
}
