//! The nodes: what they are, how they stand, and what they have earned.

use axum::Json;
use axum::extract::{Query, State};
use dockercomp_coordinator_core::{Core, NodeView, Reputation, Standing};
use dockercomp_peer::reply::Refused;
use dockercomp_protocol::Timestamp;
use dockercomp_protocol::execution::ExecutorKind;
use serde::Deserialize;

use super::ApiState;
use super::types::{Leaderboard, NodeCredit, NodeInfo, OperatorCredit, StandingInfo};

/// Places of a leaderboard, if nobody says how many.
const PLACES: usize = 20;
/// Places of a leaderboard at most.
const PLACES_MAX: usize = 10_000;

/// All nodes.
pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Vec<NodeInfo>>, Refused> {
    let now = state.decider.now();
    let nodes = state.decider.look(|core| core.nodes()).await.map_err(Refused::internal)?;
    let nodes = nodes.into_iter().map(|view| {
        let agent = state.directory.agent(&view.node).unwrap_or_default();
        info(view, agent, now)
    });
    Ok(Json(nodes.collect()))
}

/// How many places are wanted.
#[derive(Debug, Deserialize)]
pub(super) struct Places {
    most: Option<usize>,
}

/// Who has earned most.
pub(super) async fn leaderboard(
    State(state): State<ApiState>,
    Query(Places { most }): Query<Places>,
) -> Result<Json<Leaderboard>, Refused> {
    let most = most.unwrap_or(PLACES).min(PLACES_MAX);
    let look = move |core: &Core| {
        let nodes = core.leaderboard(most).into_iter().map(|(node, credit)| NodeCredit {
            node: node.to_string(),
            operator: core.node(node).and_then(|view| view.identity?.operator),
            credit: cobblestones(credit),
        });
        let operators = core.operators(most).into_iter();
        let operators = operators.map(|(operator, nodes, credit)| OperatorCredit {
            operator,
            nodes,
            credit: cobblestones(credit),
        });
        Leaderboard { nodes: nodes.collect(), operators: operators.collect() }
    };
    Ok(Json(state.decider.look(look).await.map_err(Refused::internal)?))
}

fn info(view: NodeView, agent: String, now: Timestamp) -> NodeInfo {
    let registered = view.registered.as_ref();
    let standings = view.standings.iter();
    let identity = view.identity.as_ref();
    NodeInfo {
        agent,
        executors: registered
            .map(|said| said.executors.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        cpu_millis: registered.map_or(0, |said| said.offer.cpu_millis),
        memory_bytes: registered.map_or(0, |said| said.offer.memory_bytes),
        last_seen: registered.map(|said| said.last_seen.to_string()).unwrap_or_default(),
        running: view.replicas.in_progress,
        valid: view.replicas.valid,
        invalid: view.replicas.invalid,
        errors: view.replicas.client_error + view.replicas.validate_error,
        no_reply: view.replicas.no_reply,
        operator: identity.and_then(|identity| identity.operator.clone()),
        address_range: identity.and_then(|identity| identity.range).map(|range| range.to_string()),
        quota_per_day: view.quota.per_day,
        quota_left: view.quota.left(now),
        credit: cobblestones(view.credit),
        standings: standings.map(|(&executor, of)| standing(executor, of)).collect(),
        node: view.node.to_string(),
    }
}

fn standing(executor: ExecutorKind, standing: &Standing) -> StandingInfo {
    let lately = |count: u32| f64::from(count) / f64::from(Reputation::ONE);
    StandingInfo {
        executor: executor.to_string(),
        consecutive_valid: standing.consecutive_valid,
        checks_passed: standing.checked,
        caught: standing.caught,
        barred: standing.is_barred,
        confirmed_needed: standing.confirmed_needed(),
        valid_lately: lately(standing.record.valid),
        invalid_lately: lately(standing.record.invalid),
        errors_lately: lately(standing.record.error),
        late_lately: lately(standing.record.late),
    }
}

/// Millionths of a Cobblestone as Cobblestones.
fn cobblestones(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_in_results_and_credit_in_cobblestones() {
        let record = Reputation { valid: 3 * Reputation::ONE, late: 128, ..Reputation::default() };
        let mut known = Standing::default();
        known.record = record;
        let told = standing(ExecutorKind::Wasm, &known);
        assert_eq!((told.valid_lately, told.late_lately), (3.0, 0.5));
        assert_eq!((told.executor.as_str(), told.confirmed_needed), ("wasm", 0));
        assert!((cobblestones(200_000_000) - 200.0).abs() < f64::EPSILON);
    }
}
