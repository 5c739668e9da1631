//! Whether the database may be called another release: what is not finished, and what cannot be taken back.

use std::cmp::Ordering;

use super::state::State;
use super::version::{order, Version};

/// A migration as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub state: State,
    /// Applied, or on its way back.
    pub queued: bool,
    /// Finished, and taken back by another one that has finished.
    pub taken_back: bool,
    /// A way back behind the point of no return was given.
    pub has_down: bool,
    /// It takes another one back: it belongs to no release.
    pub is_down: bool,
    pub target: Option<Version>,
    /// It had finished when the release asked about was recorded.
    pub in_checkpoint: bool,
}

/// An answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    pub reason: String,
}

fn no(reason: String) -> Answer {
    Answer {
        allowed: false,
        reason,
    }
}

fn yes(reason: String) -> Answer {
    Answer {
        allowed: true,
        reason,
    }
}

/// Whether the database can be called `to`: everything that leads there has finished, and nothing is under way.
pub fn can_upgrade(current: Option<&Version>, to: &Version, members: &[Member]) -> Answer {
    if let Some(current) = current {
        if order(to, current) != Ordering::Greater {
            return no(format!(
                "the database is at {current}, which is not below {to}"
            ));
        }
    }
    for m in members.iter().filter(|m| !m.is_down) {
        let leads_there = m
            .target
            .as_ref()
            .is_some_and(|target| order(target, to) != Ordering::Greater);
        let finished = m.state == State::Finished && !m.taken_back;
        let open = m.state != State::Finished && (m.queued || m.state != State::Uninitialized);
        if leads_there && !finished {
            let target = m.target.as_ref().map(ToString::to_string);
            let what = if m.taken_back {
                "was taken back".into()
            } else {
                format!("is {}", m.state)
            };
            return no(format!(
                "migration \"{}\", which leads to {}, {what}",
                m.id,
                target.unwrap_or_default()
            ));
        }
        if open && m.target.is_none() {
            return no(format!("migration \"{}\" is under way: {}", m.id, m.state));
        }
    }
    if let Some(m) = members.iter().find(|m| m.is_down && under_way(m)) {
        return no(format!("migration \"{}\" is under way: {}", m.id, m.state));
    }
    yes(format!(
        "every migration that leads to {to} or below has finished"
    ))
}

fn under_way(m: &Member) -> bool {
    m.state != State::Finished && (m.queued || m.state != State::Uninitialized)
}

/// Whether the database can be called `to` again, a release that was recorded: nothing that finished since then still holds.
pub fn can_downgrade(
    current: Option<&Version>,
    to: &Version,
    recorded: bool,
    members: &[Member],
) -> Answer {
    match current {
        None => return no("no release has been recorded".into()),
        Some(current) if order(to, current) != Ordering::Less => {
            return no(format!(
                "the database is at {current}, which is not above {to}"
            ));
        }
        Some(_) if !recorded => return no(format!("no checkpoint of {to} has been recorded")),
        Some(_) => {}
    }
    for m in members.iter().filter(|m| !m.in_checkpoint) {
        match m.state {
            State::Uninitialized if !m.queued => {}
            State::Finished if m.taken_back || m.is_down => {}
            State::Finished if m.has_down => {
                return no(format!(
                    "migration \"{}\" has finished since; transmute.down(id, reason) takes it back",
                    m.id
                ));
            }
            State::Finishing | State::Finished => {
                return no(format!(
                    "migration \"{}\" is {} since, past its point of no return, and has no down",
                    m.id, m.state
                ));
            }
            state if m.is_down => {
                return no(format!("migration \"{}\" is under way: {state}", m.id));
            }
            state => {
                return no(format!(
                    "migration \"{}\" is {state}; transmute.rollback(id, reason) takes it back",
                    m.id
                ));
            }
        }
    }
    // What held then and was taken back since.
    if let Some(m) = members.iter().find(|m| m.in_checkpoint && m.taken_back) {
        return no(format!(
            "migration \"{}\", which {to} has, was taken back since",
            m.id
        ));
    }
    yes(format!("nothing that finished since {to} holds any more"))
}

/// Why a migration does not fit the release the database is at; `None`: it does, or no release has been recorded.
pub fn misfit(
    current: Option<&Version>,
    source: Option<&Version>,
    target: Option<&Version>,
) -> Option<String> {
    let current = current?;
    if let Some(source) = source {
        if order(source, current) != Ordering::Equal {
            return Some(format!(
                "release {source}, from which it starts: the database is at {current}"
            ));
        }
    }
    match target {
        Some(target) if order(target, current) != Ordering::Greater => Some(format!(
            "a release below {target}, to which it leads: the database is at {current}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::version::parse;
    use proptest::prelude::*;

    fn v(text: &str) -> Version {
        parse(text).unwrap()
    }

    fn member(id: &str, state: State, target: Option<&str>) -> Member {
        Member {
            id: id.into(),
            state,
            queued: !matches!(state, State::Uninitialized | State::Finished),
            taken_back: false,
            has_down: false,
            is_down: false,
            target: target.map(v),
            in_checkpoint: false,
        }
    }

    #[test]
    fn an_upgrade_needs_everything_that_leads_there_finished() {
        let at = v("1.0.0");
        let to = v("1.2.0");
        let up = |members: &[Member]| can_upgrade(Some(&at), &to, members);
        assert!(up(&[]).allowed);
        let done = member("done", State::Finished, Some("1.1.0"));
        let later = member("later", State::Running, Some("1.3.0"));
        assert!(up(&[done.clone(), later.clone()]).allowed);
        for state in State::ALL.into_iter().filter(|s| *s != State::Finished) {
            let open = member("open", state, Some("1.2.0"));
            let answer = up(&[done.clone(), open]);
            assert_eq!(
                answer,
                no(format!(
                    "migration \"open\", which leads to 1.2.0, is {state}"
                ))
            );
        }
        // Without a release only what is under way counts.
        assert!(up(&[member("idle", State::Uninitialized, None)]).allowed);
        assert_eq!(
            up(&[member("busy", State::Running, None)]),
            no("migration \"busy\" is under way: RUNNING".into())
        );
        let mut back = done;
        back.taken_back = true;
        assert_eq!(
            up(&[back]),
            no("migration \"done\", which leads to 1.1.0, was taken back".into())
        );
        for version in ["1.0.0", "0.9.0", "1.0.0+build", "1.0.0-rc.1"] {
            assert!(
                !can_upgrade(Some(&at), &v(version), &[]).allowed,
                "{version}"
            );
        }
    }

    #[test]
    fn a_downgrade_stops_at_what_is_finalized() {
        let at = v("2.0.0");
        let to = v("1.0.0");
        let down = |members: &[Member]| can_downgrade(Some(&at), &to, true, members);
        assert!(down(&[]).allowed);
        let mut m = member("m", State::Finished, None);
        assert_eq!(
            down(&[m.clone()]),
            no(
                "migration \"m\" is FINISHED since, past its point of no return, and has no down"
                    .into()
            )
        );
        m.has_down = true;
        assert!(down(&[m.clone()]).reason.contains("transmute.down("));
        m.taken_back = true;
        let mut back = member("m:down", State::Finished, None);
        back.is_down = true;
        assert!(down(&[m.clone(), back.clone()]).allowed);
        back.state = State::Running;
        assert!(!down(&[m, back]).allowed);
        let mut old = member("old", State::Finished, None);
        old.in_checkpoint = true;
        assert!(down(&[old.clone()]).allowed);
        old.taken_back = true;
        assert_eq!(
            down(&[old]),
            no("migration \"old\", which 1.0.0 has, was taken back since".into())
        );
        for state in [
            State::Running,
            State::AwaitingFinalization,
            State::AwaitingAction,
        ] {
            assert!(down(&[member("m", state, None)])
                .reason
                .contains("transmute.rollback("));
        }
        assert!(!down(&[member("m", State::Finishing, None)]).allowed);
        assert!(down(&[member("m", State::Uninitialized, None)]).allowed);
        assert!(!can_downgrade(None, &to, true, &[]).allowed);
        assert!(!can_downgrade(Some(&at), &at, true, &[]).allowed);
        assert!(!can_downgrade(Some(&at), &v("3.0.0"), true, &[]).allowed);
        assert_eq!(
            can_downgrade(Some(&at), &to, false, &[]).reason,
            "no checkpoint of 1.0.0 has been recorded"
        );
    }

    #[test]
    fn a_migration_fits_the_release_it_starts_from() {
        let at = v("1.1.0");
        let fits = |source: Option<&str>, target: Option<&str>| {
            misfit(Some(&at), source.map(v).as_ref(), target.map(v).as_ref()).is_none()
        };
        assert!(fits(None, None));
        assert!(fits(Some("1.1.0"), Some("1.2.0")));
        assert!(fits(Some("1.1.0+x"), None));
        assert!(!fits(Some("1.0.0"), Some("1.2.0")));
        assert!(!fits(Some("1.2.0"), None));
        assert!(!fits(None, Some("1.1.0")));
        assert_eq!(misfit(None, Some(&at), Some(&at)), None);
    }

    fn any_state() -> impl Strategy<Value = State> {
        proptest::sample::select(State::ALL.to_vec())
    }

    fn any_member() -> impl Strategy<Value = Member> {
        let bits = proptest::array::uniform5(any::<bool>());
        (any_state(), bits, proptest::option::of(0..4u64)).prop_map(|(state, b, target)| Member {
            id: "m".into(),
            state,
            queued: b[0] || !matches!(state, State::Uninitialized | State::Finished),
            taken_back: state == State::Finished && b[1],
            has_down: b[2],
            is_down: b[3],
            target: target.map(|n| Version::new(1, n, 0)),
            in_checkpoint: state == State::Finished && b[4],
        })
    }

    proptest! {
        #[test]
        fn no_release_is_both_above_and_below(a in 0..4u64, b in 0..4u64, members in proptest::collection::vec(any_member(), 0..4)) {
            let (at, to) = (Version::new(1, a, 0), Version::new(1, b, 0));
            let up = can_upgrade(Some(&at), &to, &members);
            let down = can_downgrade(Some(&at), &to, true, &members);
            prop_assert!(!(up.allowed && down.allowed));
            prop_assert!(!up.reason.is_empty() && !down.reason.is_empty());
        }

        #[test]
        fn one_more_migration_never_allows_what_was_refused(members in proptest::collection::vec(any_member(), 0..4), more in any_member()) {
            let (low, high) = (Version::new(1, 0, 0), Version::new(1, 2, 0));
            let with: Vec<Member> = members.iter().cloned().chain([more]).collect();
            prop_assert!(can_upgrade(Some(&low), &high, &members).allowed || !can_upgrade(Some(&low), &high, &with).allowed);
            prop_assert!(
                can_downgrade(Some(&high), &low, true, &members).allowed || !can_downgrade(Some(&high), &low, true, &with).allowed
            );
        }

        #[test]
        fn an_upgrade_that_is_allowed_leaves_nothing_open_below(members in proptest::collection::vec(any_member(), 0..5), n in 1..4u64) {
            let to = Version::new(1, n, 0);
            if can_upgrade(None, &to, &members).allowed {
                for m in members.iter().filter(|m| !m.is_down && m.target.as_ref().is_some_and(|t| *t <= to)) {
                    prop_assert!(m.state == State::Finished && !m.taken_back);
                }
            }
        }
    }
}
