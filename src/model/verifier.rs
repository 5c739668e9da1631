//! Checks an audit trail record by record, in constant memory, and names the first fault.

use crate::model::audit::{link, Fault, FaultKind, Head, Record, ENCODING_VERSION, GENESIS_EVENT};

/// Checks a trail in order. After a fault the rest is meaningless: stop.
#[derive(Clone, Debug)]
pub struct Verifier {
    start: i64,
    head: Head,
    expected: Option<Head>,
}

impl Verifier {
    /// From the first record.
    pub fn new() -> Self {
        Self::after(Head::EMPTY)
    }

    /// From the record after `trusted`, which was verified before or kept outside.
    pub fn after(trusted: Head) -> Self {
        Self {
            start: trusted.seq,
            head: trusted,
            expected: None,
        }
    }

    /// Also proves that the trail has, or had on its way, the head `expected`: [`Verifier::push`] compares it in passing,
    /// [`Verifier::finish_expected`] sees that it was reached.
    #[must_use]
    pub fn expecting(mut self, expected: Head) -> Self {
        self.expected = Some(expected);
        self
    }

    /// Checks the next record against its stored predecessor hash `prev` and its own stored `hash`.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub fn push(&mut self, record: &Record, prev: &[u8; 32], hash: &[u8; 32]) -> Result<(), Fault> {
        let seq = self.head.seq.saturating_add(1);
        let linked = *prev == self.head.hash;
        if record.seq != seq {
            return Err(misplaced(seq, record.seq, linked));
        }
        if record.encoding_version != ENCODING_VERSION {
            let text = format!("encoding {} is not known here", record.encoding_version);
            return Err(Fault::new(seq, FaultKind::UnknownEncoding, text));
        }
        if !linked {
            let text = if seq == 1 {
                "the first record names a predecessor".to_owned()
            } else {
                format!("the record does not follow record {}", seq - 1)
            };
            return Err(Fault::new(seq, FaultKind::LinkBroken, text));
        }
        if link(prev, record) != *hash {
            let text = "the record's content does not have the stored hash".to_owned();
            return Err(Fault::new(seq, FaultKind::ContentChanged, text));
        }
        if seq == 1 && record.event != GENESIS_EVENT {
            let text = format!("the first record's event is not {GENESIS_EVENT}");
            return Err(Fault::new(seq, FaultKind::NotGenesis, text));
        }
        self.head = Head { seq, hash: *hash };
        self.compare()
    }

    /// Compares with the expected head when it is here.
    fn compare(&self) -> Result<(), Fault> {
        match self.expected {
            Some(expected) if expected.seq == self.head.seq && expected.hash != self.head.hash => {
                Err(Fault::new(
                    expected.seq,
                    FaultKind::HeadMismatch,
                    "the trail is whole but is not the one whose head was kept".to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// The last record that was verified.
    pub fn finish(self) -> Head {
        self.head
    }

    /// Like [`Verifier::finish`], and sees that the head given to [`Verifier::expecting`] was met.
    ///
    /// # Errors
    /// [`FaultKind::TailMissing`], [`FaultKind::HeadNotCovered`] or, for a head at the very start,
    /// [`FaultKind::HeadMismatch`].
    pub fn finish_expected(self) -> Result<Head, Fault> {
        self.compare()?;
        match self.expected {
            Some(expected) if expected.seq > self.head.seq => Err(Fault::new(
                self.head.seq.saturating_add(1),
                FaultKind::TailMissing,
                format!(
                    "the trail ends at {}, the head that was kept is {}",
                    self.head.seq, expected.seq
                ),
            )),
            Some(expected) if expected.seq < self.start => Err(Fault::new(
                expected.seq,
                FaultKind::HeadNotCovered,
                format!(
                    "verified from {} on, the head that was kept is {}",
                    self.start, expected.seq
                ),
            )),
            _ => Ok(self.head),
        }
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

/// The fault of a record that stands where number `wanted` belongs. Where it follows its predecessor it is the right
/// record, renumbered.
fn misplaced(wanted: i64, found: i64, linked: bool) -> Fault {
    if linked {
        let text = format!(
            "the record follows record {} but its number is {found}",
            wanted - 1
        );
        Fault::new(wanted, FaultKind::ContentChanged, text)
    } else if found > wanted {
        let text = format!("expected record {wanted}, found {found}");
        Fault::new(wanted, FaultKind::SequenceGap, text)
    } else {
        let text = format!("expected record {wanted}, found {found} again");
        Fault::new(found, FaultKind::OutOfOrder, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::audit::GENESIS_PREV;
    use proptest::prelude::*;

    type Entry = (Record, [u8; 32], [u8; 32]);
    type Change = fn(&mut Entry);

    fn record(seq: i64) -> Record {
        Record {
            seq,
            encoding_version: ENCODING_VERSION,
            at_us: 1_700_000_000_000_000 - seq,
            transaction_at_us: 1_700_000_000_000_000,
            xid: (700 + seq).to_string(),
            session_user: "ann".into(),
            current_user: "owner".into(),
            application_name: String::new(),
            client_addr: (seq % 2 == 0).then(|| "10.0.0.1".into()),
            migration_id: (seq > 1).then(|| "m".into()),
            event: if seq == 1 {
                GENESIS_EVENT.into()
            } else {
                "state".into()
            },
            from_state: None,
            to_state: (seq % 3 == 0).then(|| "RUNNING".into()),
            detail: Some(format!("{{\"n\": {seq}}}")),
        }
    }

    fn relink(records: impl IntoIterator<Item = Record>) -> Vec<Entry> {
        let mut prev = GENESIS_PREV;
        let chain = records.into_iter().map(|record| {
            let hash = link(&prev, &record);
            let entry = (record, prev, hash);
            prev = hash;
            entry
        });
        chain.collect()
    }

    fn chain(length: i64) -> Vec<Entry> {
        relink((1..=length).map(record))
    }

    fn head(chain: &[Entry], seq: i64) -> Head {
        let hash = if seq == 0 {
            GENESIS_PREV
        } else {
            chain[seq as usize - 1].2
        };
        Head { seq, hash }
    }

    fn verify(verifier: Verifier, chain: &[Entry]) -> Result<Head, Fault> {
        let mut verifier = verifier;
        for (record, prev, hash) in chain {
            verifier.push(record, prev, hash)?;
        }
        verifier.finish_expected()
    }

    fn fault(chain: &[Entry]) -> (i64, FaultKind) {
        let fault = verify(Verifier::new(), chain).unwrap_err();
        (fault.seq, fault.kind)
    }

    fn toggle(field: &mut Option<String>) {
        *field = match field.take() {
            Some(text) if text.is_empty() => None,
            Some(_) => Some(String::new()),
            None => Some(String::new()),
        };
    }

    /// One change for each column, and how it must be named.
    const CHANGES: [(Change, FaultKind); 16] = [
        (|e| e.0.seq += 100, FaultKind::ContentChanged),
        (|e| e.0.encoding_version += 1, FaultKind::UnknownEncoding),
        (|e| e.0.at_us ^= 1, FaultKind::ContentChanged),
        (|e| e.0.transaction_at_us ^= 1, FaultKind::ContentChanged),
        (|e| e.0.xid.push('0'), FaultKind::ContentChanged),
        (|e| e.0.session_user.push(' '), FaultKind::ContentChanged),
        (|e| e.0.current_user.clear(), FaultKind::ContentChanged),
        (
            |e| e.0.application_name.push('x'),
            FaultKind::ContentChanged,
        ),
        (|e| toggle(&mut e.0.client_addr), FaultKind::ContentChanged),
        (|e| toggle(&mut e.0.migration_id), FaultKind::ContentChanged),
        (|e| e.0.event.push('x'), FaultKind::ContentChanged),
        (|e| toggle(&mut e.0.from_state), FaultKind::ContentChanged),
        (|e| toggle(&mut e.0.to_state), FaultKind::ContentChanged),
        (|e| toggle(&mut e.0.detail), FaultKind::ContentChanged),
        (|e| e.1[31] ^= 1, FaultKind::LinkBroken),
        (|e| e.2[0] ^= 128, FaultKind::ContentChanged),
    ];

    #[test]
    fn an_untouched_trail_verifies_from_any_place() {
        let all = chain(12);
        assert_eq!(verify(Verifier::new(), &all), Ok(head(&all, 12)));
        assert_eq!(verify(Verifier::default(), &[]), Ok(Head::EMPTY));
        for from in 0..=12 {
            let rest = &all[from as usize..];
            assert_eq!(
                verify(Verifier::after(head(&all, from)), rest),
                Ok(head(&all, 12))
            );
        }
    }

    #[test]
    fn a_trail_that_does_not_begin_with_its_first_record_is_refused() {
        let other = relink((1..4).map(|seq| Record {
            event: "state".into(),
            ..record(seq)
        }));
        assert_eq!(fault(&other), (1, FaultKind::NotGenesis));
        assert_eq!(fault(&chain(4)[2..]), (1, FaultKind::SequenceGap));
        assert!(verify(
            Verifier::after(Head {
                seq: 2,
                hash: [1; 32]
            }),
            &chain(4)[2..]
        )
        .is_err());
    }

    #[test]
    fn a_forged_record_breaks_the_link_after_it_and_any_kept_head() {
        let all = chain(5);
        let mut forged = all.clone();
        forged[2].0.event = "nothing happened".into();
        forged[2].2 = link(&forged[2].1, &forged[2].0);
        assert_eq!(fault(&forged), (4, FaultKind::LinkBroken));
        let rewritten = relink(forged.into_iter().map(|entry| entry.0));
        for kept in 3..=5 {
            let fault =
                verify(Verifier::new().expecting(head(&all, kept)), &rewritten).unwrap_err();
            assert_eq!((fault.seq, fault.kind), (kept, FaultKind::HeadMismatch));
        }
        assert!(verify(Verifier::new().expecting(head(&all, 2)), &rewritten).is_ok());
    }

    #[test]
    fn an_expected_head_before_the_start_is_not_taken_for_met() {
        let all = chain(5);
        let late = Verifier::after(head(&all, 3)).expecting(head(&all, 2));
        assert_eq!(
            verify(late, &all[3..]).unwrap_err().kind,
            FaultKind::HeadNotCovered
        );
        let wrong = Head {
            seq: 3,
            hash: [9; 32],
        };
        let at_start = Verifier::after(head(&all, 3)).expecting(wrong);
        assert_eq!(
            verify(at_start, &[]).unwrap_err().kind,
            FaultKind::HeadMismatch
        );
    }

    proptest! {
        #[test]
        fn any_change_of_any_field_is_named_where_it_is(
            length in 1usize..10, at in any::<prop::sample::Index>(), change in prop::sample::select(&CHANGES[..]),
        ) {
            let mut chain = chain(length as i64);
            let at = at.index(length);
            change.0(&mut chain[at]);
            prop_assert_eq!(fault(&chain), (at as i64 + 1, change.1));
        }

        #[test]
        fn a_removal_is_named_at_the_first_missing(from in 0usize..8, count in 1usize..8) {
            let mut chain = chain(10);
            chain.drain(from..(from + count).min(9));
            prop_assert_eq!(fault(&chain), (from as i64 + 1, FaultKind::SequenceGap));
        }

        #[test]
        fn a_duplicate_is_named(at in 0usize..6, to in 0usize..6) {
            let mut chain = chain(6);
            let entry = chain[at].clone();
            chain.insert(to.max(at) + 1, entry);
            prop_assert_eq!(fault(&chain), (at as i64 + 1, FaultKind::OutOfOrder));
        }

        #[test]
        fn swapped_records_are_named_at_the_first(a in 0usize..5, gap in 1usize..6, renumbered: bool) {
            let b = (a + gap).min(5);
            let mut chain = chain(6);
            chain.swap(a, b);
            let mut kind = FaultKind::SequenceGap;
            if renumbered {
                (chain[a].0.seq, chain[b].0.seq) = (a as i64 + 1, b as i64 + 1);
                kind = FaultKind::LinkBroken;
            }
            prop_assert_eq!(fault(&chain), (a as i64 + 1, kind));
        }

        #[test]
        fn a_cut_tail_is_found_against_a_newer_head_only(keep in 0i64..8, kept in 0i64..=8) {
            let all = chain(8);
            let verifier = Verifier::new().expecting(head(&all, kept));
            match verify(verifier, &all[..keep as usize]) {
                Ok(reached) => prop_assert!(kept <= keep && reached == head(&all, keep)),
                Err(fault) => {
                    prop_assert!(kept > keep);
                    prop_assert_eq!((fault.seq, fault.kind), (keep + 1, FaultKind::TailMissing));
                }
            }
        }
    }
}
