//! Whether a statement is what statement.cddl says, whatever a case wants of it besides.
//!
//! What is not home's own statement fails the case that asked for it. What else is wrong is kept until a case reviews it:
//! one fault of a node makes one case red, and every statement of every case is looked at all the same.

use proto::{
    hint::IdentityHint,
    policy::Meaning,
    refusal::Refusal,
    statement::{Statement, Status, UnverifiedStatement},
    terms::{Level, Scope},
    time::UnixTime,
    token::TokenHash,
};

use super::{
    stage::Pass,
    steps::{Field, Property},
    token::near,
    world::World,
};

/// A statement as it was asked for.
pub(super) struct Asked<'a> {
    /// For whose token.
    pub(super) pass: &'a Pass,
    /// The token as it was shown.
    pub(super) token: &'a [u8],
    /// What was granted.
    pub(super) scope: Scope,
}

/// Reads a statement by the trust list; what it is instead is said in a line.
pub(super) fn read(bytes: &[u8], world: &World) -> Result<Statement, String> {
    let wrong = |refusal: Refusal| format!("a statement that is {refusal}");
    let statement = UnverifiedStatement::parse(bytes).map_err(wrong)?;
    if statement.issuer() != world.member() {
        return Err(format!("a statement of {}", statement.issuer()));
    }
    let trust = world.trust();
    let key = trust.list.statement_key(world.member(), statement.kid()).map_err(wrong)?;
    statement.verify(key).map_err(wrong)
}

/// What is wrong with a statement, by what it is about.
pub(super) fn faults(statement: &Statement, asked: &Asked<'_>, world: &World) -> Vec<(Property, String)> {
    let (trust, home) = (world.trust(), world.member());
    let status = statement.status();
    let said = |checked: Result<(), Refusal>| checked.err().map(|refusal| refusal.to_string());
    let checks = [
        (Property::Bound, said(statement.check_binding(home, TokenHash::of(asked.token)))),
        (Property::EndsInTime, life(statement, asked, world)),
        (Property::DisclosesNoMore, said(statement.check_scope(asked.scope))),
        (Property::LatestFirst, (!latest_first(status)).then(|| "a list has not the latest first".into())),
        (Property::HintOpens, hint(status, asked.pass)),
        (Property::LogNeverGoesBack, world.observe(status.head).err()),
        (Property::Substantiated, {
            let green = trust.policy.meaning(home, &status.label) == Some(Meaning::Level(Level::Green));
            let bare = !green && (status.rule.is_none() || status.authority.is_none());
            bare.then(|| format!("{} without rule or authority", status.label))
        }),
    ];
    checks.into_iter().filter_map(|(property, fault)| Some((property, fault?))).collect()
}

/// Whether a statement has a field.
pub(super) fn has(status: &Status, field: Field) -> bool {
    match field {
        Field::Rule => status.rule.is_some(),
        Field::Authority => status.authority.is_some(),
        Field::AssignedAt => status.assigned_at.is_some(),
        Field::Tests => !status.tests.is_empty(),
        Field::Doses => !status.doses.is_empty(),
        Field::Visits => !status.visits.is_empty(),
        Field::Hint => status.hint.is_some(),
    }
}

fn life(statement: &Statement, asked: &Asked<'_>, world: &World) -> Option<String> {
    let (status, lives, now) = (statement.status(), world.trust().policy.lives, world.now());
    if !near(status.issued_at, now) {
        return Some(format!("issued at {}, and it is {now}", status.issued_at));
    }
    let latest = asked.pass.consent.expires_at.min(status.issued_at.plus(lives.statement));
    // A token is honoured for the clocks' leeway after its end; a statement never ends before it begins.
    if status.expires_at > latest.max(status.issued_at) {
        return Some(format!("it ends {} s after token or policy let it", status.expires_at.since(latest)));
    }
    statement.check_time(now, &lives).err().map(|refusal| refusal.to_string())
}

fn hint(status: &Status, pass: &Pass) -> Option<String> {
    let sealed = status.hint.as_ref()?;
    match IdentityHint::open(sealed, &pass.hint_key) {
        Ok(hint) if hint == IdentityHint::mask(&pass.person.name, &pass.person.number) => None,
        Ok(_) => Some("the hint masks name or number otherwise".into()),
        Err(_) => Some("`k` does not open the hint".into()),
    }
}

fn latest_first(status: &Status) -> bool {
    let descending = |times: Vec<UnixTime>| times.is_sorted_by(|a, b| a >= b);
    descending(status.tests.iter().map(|test| test.sampled_at).collect())
        && descending(status.doses.iter().map(|dose| dose.given_at).collect())
        && descending(status.visits.iter().map(|visit| visit.left_at).collect())
}
