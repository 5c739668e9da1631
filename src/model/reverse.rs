//! The way back from what an object is now to what it was: facts compared with facts.

use serde::{Deserialize, Serialize};

/// Something that the catalogs say of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// In ascending order facts make the object.
    pub rank: i32,
    pub name: String,
    pub value: String,
    /// SQL that makes it so; `None`: nothing can.
    pub make: Option<String>,
    /// SQL that takes it away.
    pub unmake: Option<String>,
    /// A changed one goes before it is made.
    pub replaces: bool,
}

/// How the name of a fact begins that is a state of another one.
const STATE: &str = "state of ";

/// What cannot be taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Irreversible(pub String);

/// Statements that lead from `after` to `before`; an empty `after` is an object that is gone.
pub fn statements(before: &[Fact], after: &[Fact]) -> Result<Vec<String>, Irreversible> {
    if let Some(unmake) = grown_view(before, after) {
        // OR REPLACE takes no column away.
        let mut found = vec![unmake.to_string()];
        found.extend(statements(before, &[])?);
        return Ok(found);
    }
    let gone = after.is_empty();
    let find = |facts: &[Fact], name: &str| facts.iter().position(|f| f.name == name);
    let mut away: Vec<&Fact> = Vec::new();
    let mut again: Vec<&Fact> = Vec::new();
    for fact in after {
        match find(before, &fact.name) {
            None => away.push(fact),
            Some(i) if before[i].value != fact.value && before[i].replaces => away.push(fact),
            Some(_) => {}
        }
    }
    for fact in before {
        match find(after, &fact.name) {
            Some(i) if after[i].value == fact.value => {}
            // Whatever makes the thing again makes its state too.
            None if fact.name.starts_with(STATE) => {}
            _ => again.push(fact),
        }
    }
    away.sort_by_key(|f| -f.rank);
    again.sort_by_key(|f| f.rank);
    let mut found = Vec::new();
    // What nothing takes away by itself goes with what it is a part of.
    found.extend(away.into_iter().filter_map(|fact| fact.unmake.clone()));
    for fact in again {
        match &fact.make {
            Some(sql) => found.push(sql.clone()),
            // What is made with the object itself.
            None if gone && fact.rank > 10 => {}
            None => return Err(Irreversible(fact.name.clone())),
        }
    }
    Ok(found)
}

/// What takes away a view that has more columns than before; `None`: it is none.
fn grown_view<'a>(before: &[Fact], after: &'a [Fact]) -> Option<&'a str> {
    fn view(facts: &[Fact]) -> Option<&Fact> {
        let is_view = |sql: &String| sql.starts_with("CREATE OR REPLACE VIEW ");
        let mut own = facts.iter().filter(|f| f.rank == 10);
        own.find(|f| f.make.as_ref().is_some_and(is_view))
    }
    // Its value begins with the number.
    let columns = |fact: &Fact| fact.value.split(' ').next()?.parse::<u32>().ok();
    let (old, new) = (view(before)?, view(after)?);
    (columns(old)? < columns(new)?)
        .then_some(new.unmake.as_deref())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(rank: i32, name: &str, value: &str) -> Fact {
        Fact {
            rank,
            name: name.into(),
            value: value.into(),
            make: Some(format!("make {name} {value}")),
            unmake: Some(format!("unmake {name}")),
            replaces: false,
        }
    }

    #[test]
    fn a_view_that_has_got_columns_is_made_again_as_a_whole() {
        let view = |columns: u32| Fact {
            make: Some(format!("CREATE OR REPLACE VIEW v AS {columns}")),
            ..fact(10, "it", &format!("{columns} SELECT"))
        };
        let owner = fact(20, "owner", "somebody");
        let (old, new) = ([view(1), owner.clone()], [view(2), owner]);
        assert_eq!(
            statements(&old, &new).unwrap(),
            [
                "unmake it",
                "CREATE OR REPLACE VIEW v AS 1",
                "make owner somebody"
            ]
        );
        let same = [view(1), fact(20, "owner", "another")];
        assert_eq!(statements(&old, &same).unwrap(), ["make owner somebody"]);
    }

    #[test]
    fn what_changed_is_made_again_and_what_is_new_goes_first() {
        let before = [
            fact(10, "it", "1"),
            fact(30, "default", "old"),
            fact(40, "gone", "x"),
        ];
        let after = [
            fact(10, "it", "1"),
            fact(30, "default", "new"),
            fact(50, "more", "y"),
        ];
        assert_eq!(
            statements(&before, &after).unwrap(),
            ["unmake more", "make default old", "make gone x"]
        );
        assert!(statements(&before, &before).unwrap().is_empty());
    }

    #[test]
    fn what_is_replaced_goes_before_it_is_made() {
        let mut old = fact(55, "trigger", "old");
        old.replaces = true;
        let mut new = old.clone();
        new.value = "new".into();
        assert_eq!(
            statements(&[old], &[new]).unwrap(),
            ["unmake trigger", "make trigger old"]
        );
    }

    #[test]
    fn an_object_that_is_gone_is_made_in_order_or_not_at_all() {
        let mut part = fact(15, "column", "");
        part.make = None;
        let mut it = fact(10, "it", "1");
        let comment = fact(70, "comment", "c");
        let all = [comment.clone(), part.clone(), it.clone()];
        assert_eq!(
            statements(&all, &[]).unwrap(),
            ["make it 1", "make comment c"]
        );
        it.make = None;
        let irreversible = statements(&[it, comment], &[]).unwrap_err();
        assert_eq!(irreversible.0, "it");
    }

    #[test]
    fn a_state_comes_with_its_thing() {
        let before = [
            fact(55, "trigger a", "x"),
            fact(56, "state of trigger a", "D"),
        ];
        let after = [fact(10, "it", "1")];
        let mut with_it = before.to_vec();
        with_it.push(after[0].clone());
        assert_eq!(statements(&with_it, &after).unwrap(), ["make trigger a x"]);
    }

    #[test]
    fn a_part_that_nothing_makes_again_cannot_be_taken_back() {
        let mut column = fact(15, "column", "");
        column.make = None;
        let it = fact(10, "it", "1");
        assert!(statements(&[it.clone(), column], &[it]).is_err());
    }
}
