//! Which statements of a script may be tied to which, by the names they share: a long script is not compared pair by pair.

use super::effects::Effects;
use std::collections::{BTreeSet, HashMap};

/// Statements by the names in them, whatever schema these stand in.
#[derive(Debug, Default)]
pub struct Ties {
    /// Who makes, drops or changes something of this name.
    touch: HashMap<String, Vec<usize>>,
    /// Who mentions this name.
    mention: HashMap<String, Vec<usize>>,
    /// Who may do anything.
    unknown: Vec<usize>,
    count: usize,
}

impl Ties {
    /// Takes in the next statement; they are numbered as they come, from 0.
    pub fn push(&mut self, effects: &Effects) {
        let index = self.count;
        self.count += 1;
        if effects.unknown {
            self.unknown.push(index);
        }
        for object in touched(effects) {
            add(&mut self.touch, object, index);
        }
        for name in effects.mentions.words() {
            add(&mut self.mention, name, index);
        }
    }

    /// Every statement that a statement with these effects can be tied to, in order; some of them are not.
    pub fn candidates(&self, effects: &Effects) -> BTreeSet<usize> {
        if effects.unknown {
            return (0..self.count).collect();
        }
        let known = |map: &'_ HashMap<String, Vec<usize>>, name: &str| {
            map.get(name).cloned().unwrap_or_default()
        };
        let touching = effects.mentions.words().flat_map(|n| known(&self.touch, n));
        let mentioning = touched(effects).flat_map(|n| known(&self.mention, n));
        touching
            .chain(mentioning)
            .chain(self.unknown.iter().copied())
            .collect()
    }
}

fn touched(effects: &Effects) -> impl Iterator<Item = &str> {
    effects
        .makes
        .iter()
        .chain(&effects.drops)
        .chain(&effects.alters)
        .map(|object| object.name.as_str())
}

fn add(map: &mut HashMap<String, Vec<usize>>, name: &str, index: usize) {
    match map.get_mut(name) {
        Some(known) if known.last() == Some(&index) => {}
        Some(known) => known.push(index),
        None => {
            map.insert(name.to_string(), vec![index]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::effects::{Object, Space};
    use crate::model::mentions::Mentions;
    use proptest::prelude::*;

    fn effects() -> impl Strategy<Value = Effects> {
        let names = || prop::collection::vec("[a-e]", 0..3);
        let all = (
            names(),
            names(),
            names(),
            names(),
            any::<bool>(),
            0..20,
            prop::option::of("[s-t]"),
        );
        all.prop_map(|(makes, drops, alters, mentions, light, unknown, schema)| {
            let objects = |names: &[String]| {
                let one = |name: &String| Object {
                    space: Space::Relation,
                    schema: schema.clone(),
                    name: name.clone(),
                };
                names.iter().map(one).collect::<Vec<_>>()
            };
            Effects {
                makes: objects(&makes),
                drops: objects(&drops),
                alters: objects(&alters),
                mentions: Mentions::of(&[mentions, alters.clone()].concat().join(" ")),
                light,
                unknown: unknown == 0,
                ..Effects::default()
            }
        })
    }

    proptest! {
        #[test]
        fn nothing_that_is_tied_is_missed(script in prop::collection::vec(effects(), 1..12)) {
            let mut ties = Ties::default();
            for effects in &script {
                ties.push(effects);
            }
            for later in &script {
                let found = ties.candidates(later);
                for (i, earlier) in script.iter().enumerate() {
                    prop_assert!(later.tie_to(earlier).is_none() || found.contains(&i));
                }
            }
        }
    }

    #[test]
    fn statements_about_other_tables_are_no_candidates() {
        let mut ties = Ties::default();
        let of = |name: &str| Effects {
            alters: vec![Object {
                space: Space::Relation,
                schema: None,
                name: name.into(),
            }],
            mentions: Mentions::of(&format!("ALTER TABLE {name} ADD x int")),
            ..Effects::default()
        };
        for i in 0..100 {
            ties.push(&of(&format!("t{i}")));
        }
        assert_eq!(ties.candidates(&of("t7")), BTreeSet::from([7]));
    }
}
