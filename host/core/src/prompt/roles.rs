//! From many parsed prompt files to the roles that load. One bad file leaves the others serving.

use std::collections::BTreeMap;

use super::Role;
use super::error::{Position, PromptError, PromptFault};
use crate::name::RoleName;

/// The roles that load, and what is wrong with the files that do not.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// By name.
    pub roles: BTreeMap<RoleName, Role>,
    /// In the order of the files; files that claim the same role come last.
    pub problems: Vec<PromptError>,
}

/// Gathers what was parsed. Files that claim the same role name are all left out: which of them
/// was reviewed for the policies that name the role, nobody can tell.
pub fn collect(results: impl IntoIterator<Item = Result<Role, PromptError>>) -> Roles {
    let mut claims = BTreeMap::<RoleName, Vec<Role>>::new();
    let mut collected = Roles::default();
    for result in results {
        match result {
            Ok(role) => claims.entry(role.name.clone()).or_default().push(role),
            Err(error) => collected.problems.push(error),
        }
    }
    for (name, mut claimants) in claims {
        if claimants.len() > 1 {
            collected.problems.extend(claimants.iter().map(|role| clash(role, &claimants)));
        } else if let Some(role) = claimants.pop() {
            collected.roles.insert(name, role);
        }
    }
    collected
}

fn clash(role: &Role, claimants: &[Role]) -> PromptError {
    let other = claimants.iter().find(|other| other.path != role.path).unwrap_or(role);
    PromptError {
        path: role.path.clone(),
        at: Position::START,
        fault: PromptFault::RoleClaimedTwice { role: role.name.clone(), other: other.path.clone() },
    }
}
