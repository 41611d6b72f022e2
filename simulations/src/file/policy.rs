//! The policy of a job, by the keys of a job file's `[validation]`.

use dockercomp_protocol::job::{Adaptive, Audited, Credibility, Policy, Share, Validation};
use toml::{Table, Value};

use super::error::FileError;
use super::section::{self, PolicyName};

/// Reads the policy, and refuses keys that belong to another.
pub(crate) fn read(place: &str, written: &section::Validation) -> Result<Policy, FileError> {
    use PolicyName::{Adaptive as A, Audited as L, Credibility as C};
    let keys = [
        (written.trusted_after.is_some(), &[A][..], "trusted_after"),
        (written.replication_factor.is_some(), &[A], "replication_factor"),
        (written.accepted_error.is_some(), &[C, L], "accepted_error"),
        (written.saboteurs.is_some(), &[C, L], "saboteurs"),
        (written.spot_checks.is_some(), &[C], "spot_checks"),
        (written.audit_floor.is_some(), &[L], "audit_floor"),
        (written.lot_max.is_some(), &[L], "lot_max"),
        (written.hold.is_some(), &[L], "hold"),
    ];
    let foreign = keys.iter().find(|(is_there, of, _)| *is_there && !of.contains(&written.policy));
    if let Some((.., key)) = foreign {
        let reason = format!("means nothing to policy {:?}", written.policy).to_lowercase();
        return Err(FileError::invalid(format!("{place}.{key}"), reason));
    }
    let share = |key: &str, stated: Option<f64>, usual: Share| match stated.map(Share::nearest) {
        None => Ok(usual),
        Some(Some(share)) => Ok(share),
        Some(None) => Err(FileError::invalid(format!("{place}.{key}"), "is not from 0 to 1")),
    };
    Ok(match written.policy {
        PolicyName::Fixed => Policy::Fixed,
        A => {
            let usual = Adaptive::default();
            Policy::Adaptive(Adaptive {
                trusted_after: written.trusted_after.unwrap_or(usual.trusted_after),
                replication_factor: written.replication_factor.unwrap_or(usual.replication_factor),
            })
        }
        C => {
            let usual = Credibility::default();
            Policy::Credibility(Credibility {
                accepted_error: share(
                    "accepted_error",
                    written.accepted_error,
                    usual.accepted_error,
                )?,
                saboteurs: share("saboteurs", written.saboteurs, usual.saboteurs)?,
                spot_checks: share("spot_checks", written.spot_checks, usual.spot_checks)?,
            })
        }
        L => {
            let usual = Audited::default();
            let hold_ms = written.hold.map(|hold| dockercomp_protocol::time::millis(hold.0));
            Policy::Audited(Audited {
                accepted_error: share(
                    "accepted_error",
                    written.accepted_error,
                    usual.accepted_error,
                )?,
                saboteurs: share("saboteurs", written.saboteurs, usual.saboteurs)?,
                audit_floor: share("audit_floor", written.audit_floor, usual.audit_floor)?,
                lot_max: written.lot_max.unwrap_or(usual.lot_max),
                hold_ms: hold_ms.unwrap_or(usual.hold_ms),
            })
        }
    })
}

/// The way back: the keys that [`read`] makes the policy of.
pub(crate) fn write(rules: &Validation, table: &mut Table) {
    let mut put = |key: &str, value: Value| {
        table.insert(key.to_owned(), value);
    };
    let share = |share: Share| Value::Float(f64::from(share.0) / 1e9);
    let number = |number: u32| Value::Integer(number.into());
    match rules.policy {
        Policy::Fixed => put("policy", "fixed".into()),
        Policy::Adaptive(adaptive) => {
            put("policy", "adaptive".into());
            put("trusted_after", number(adaptive.trusted_after));
            put("replication_factor", number(adaptive.replication_factor));
        }
        Policy::Credibility(credibility) => {
            put("policy", "credibility".into());
            put("accepted_error", share(credibility.accepted_error));
            put("saboteurs", share(credibility.saboteurs));
            put("spot_checks", share(credibility.spot_checks));
        }
        Policy::Audited(audited) => {
            put("policy", "audited".into());
            put("accepted_error", share(audited.accepted_error));
            put("saboteurs", share(audited.saboteurs));
            put("audit_floor", share(audited.audit_floor));
            put("lot_max", number(audited.lot_max));
            put("hold", format!("{}ms", audited.hold_ms).into());
        }
    }
}
