//! What three answers say together: where the replicas differ, which of them is right, and who has it. Pure.

use bytes::Bytes;
use holdfast_storage::check::Found;
use holdfast_storage::data::sums::{DAMAGED, HOLE, Sum};
use std::collections::{BTreeMap, BTreeSet};

/// Of each node that answered, by its name.
pub(super) type Answers = BTreeMap<String, Result<Found, String>>;

/// What each node has in one place: a checksum, or the hash of a value; none: no such key.
pub(super) type Views = BTreeMap<String, Option<Sum>>;

/// One place in which not all have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference<P> {
    pub(super) place: P,
    pub(super) views: Views,
}

impl<P> Difference<P> {
    /// What two nodes have alike; or what the only sound one of those that answered has. And who has it.
    pub(super) fn right(&self) -> Option<(Option<Sum>, Vec<String>)> {
        let mut holders: BTreeMap<Option<Sum>, Vec<String>> = BTreeMap::new();
        for (node, view) in self.views.iter().filter(|(_, view)| **view != Some(DAMAGED)) {
            holders.entry(*view).or_default().push(node.clone());
        }
        let only_one = holders.len() == 1;
        holders.into_iter().find(|(_, nodes)| only_one || nodes.len() >= 2)
    }

    /// Nodes that agree, and each one alone whose bytes aren't what it stored.
    pub(super) fn groups(&self) -> Vec<Vec<String>> {
        let mut groups: BTreeMap<Option<Sum>, Vec<String>> = BTreeMap::new();
        let mut damaged = Vec::new();
        for (node, view) in &self.views {
            if *view == Some(DAMAGED) {
                damaged.push(vec![node.clone()]);
            } else {
                groups.entry(*view).or_default().push(node.clone());
            }
        }
        groups.into_values().chain(damaged).collect()
    }

    pub(super) fn damaged(&self) -> Vec<&str> {
        let damaged = self.views.iter().filter(|(_, view)| **view == Some(DAMAGED));
        damaged.map(|(node, _)| node.as_str()).collect()
    }

    /// The one that two others contradict, or that is the only damaged one.
    pub(super) fn odd_one_out(&self) -> Option<String> {
        let (_, right) = self.right()?;
        let mut others = self.views.keys().filter(|node| !right.contains(node));
        let odd = others.next()?;
        (others.next().is_none() && right.len() >= 2).then(|| odd.clone())
    }
}

fn found(answers: &Answers) -> impl Iterator<Item = (&String, &Found)> + Clone {
    answers
        .iter()
        .filter_map(|(node, found)| Some((node, found.as_ref().ok()?)))
}

/// Whether all who had a say in it have the same there now: `again` are the differences of the same part, asked once more.
pub(super) fn is_mended<P: PartialEq>(was: &Difference<P>, answers: &Answers, again: &[Difference<P>]) -> bool {
    let answered = |node: &String| answers.get(node).is_some_and(Result::is_ok);
    was.views.keys().all(answered) && again.iter().all(|other| other.place != was.place)
}

fn differs(views: &Views) -> bool {
    let mut all = views.values();
    let first = all.next();
    views.values().any(|view| *view == Some(DAMAGED)) || all.any(|view| Some(view) != first)
}

/// Places of blocks are counted from the beginning of the part. What lies behind a replica's end of the file is a hole.
pub(super) fn blocks(answers: &Answers) -> Vec<Difference<u64>> {
    let same = |(one, two): (&Found, &Found)| one.sums == two.sums;
    let all: Vec<&Found> = found(answers).map(|(_, found)| found).collect();
    if all.iter().all(|found| !found.is_damaged()) && all.windows(2).all(|pair| same((pair[0], pair[1]))) {
        return Vec::new();
    }
    let longest = all.iter().map(|found| found.sums.len()).max().unwrap_or(0);
    (0..longest)
        .map(|at| Difference {
            place: at as u64,
            views: found(answers)
                .map(|(node, found)| (node.clone(), Some(found.sums.get(at).copied().unwrap_or(HOLE))))
                .collect(),
        })
        .filter(|difference| differs(&difference.views))
        .collect()
}

/// Who can't say what it has, each alone; the others together if they say the same. And the odd one out, if it is one.
pub(super) fn faults<T: Ord>(answers: &Answers, of: impl Fn(&Found) -> T) -> (Vec<Vec<String>>, Option<String>) {
    let mut groups: BTreeMap<T, Vec<String>> = BTreeMap::new();
    let mut silent = Vec::new();
    for (node, found) in answers {
        match found {
            Ok(found) => groups.entry(of(found)).or_default().push(node.clone()),
            Err(_) => silent.push(node.clone()),
        }
    }
    let agree = groups.len() == 1 && groups.values().all(|nodes| nodes.len() >= 2);
    let odd = (agree && silent.len() == 1).then(|| silent[0].clone());
    let alone = silent.into_iter().map(|node| vec![node]);
    (groups.into_values().chain(alone).collect(), odd)
}

/// Of all that was applied.
pub(super) fn digests(answers: &Answers) -> Option<Difference<()>> {
    let views: Views = found(answers)
        .map(|(node, found)| (node.clone(), found.hash.as_slice().try_into().ok()))
        .collect();
    differs(&views).then_some(Difference { place: (), views })
}

/// Keys that all replicas had to list: up to the first of their ends, where the next part begins (none: all to the last key).
pub(super) fn keys(answers: &Answers) -> (Vec<Difference<Bytes>>, Option<Bytes>) {
    let ends = found(answers).map(|(_, found)| found.next.clone());
    let end = ends.filter(|end| !end.is_empty()).min();
    let lists: BTreeMap<&String, BTreeMap<&Bytes, Sum>> = found(answers)
        .map(|(node, found)| (node, found.keys.iter().map(|(key, hash)| (key, *hash)).collect()))
        .collect();
    let names: BTreeSet<&Bytes> = lists.values().flat_map(|list| list.keys().copied()).collect();
    let inside = names
        .into_iter()
        .filter(|key| end.as_ref().is_none_or(|end| *key < end));
    let differences = inside
        .map(|key| Difference {
            place: key.clone(),
            views: lists
                .iter()
                .map(|(node, list)| ((*node).clone(), list.get(key).copied()))
                .collect(),
        })
        .filter(|difference| differs(&difference.views))
        .collect();
    (differences, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Sum = [1; 16];
    const B: Sum = [2; 16];

    fn answers(of: [(&str, &[Sum]); 3]) -> Answers {
        of.map(|(node, sums)| {
            let found = Found {
                sums: sums.to_vec(),
                ..Found::default()
            };
            (node.to_owned(), Ok(found))
        })
        .into()
    }

    #[test]
    fn replicas_that_agree_have_no_difference() {
        assert_eq!(
            blocks(&answers([("n1", &[A, B]), ("n2", &[A, B]), ("n3", &[A, B])])),
            []
        );
    }

    #[test]
    fn the_majority_is_right() {
        let found = blocks(&answers([("n1", &[A, B]), ("n2", &[A, A]), ("n3", &[A, B])]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, 1);
        assert_eq!(found[0].right(), Some((Some(B), vec!["n1".into(), "n3".into()])));
        assert_eq!(found[0].odd_one_out().as_deref(), Some("n2"));
    }

    #[test]
    fn a_damaged_node_has_no_say() {
        let found = blocks(&answers([("n1", &[DAMAGED]), ("n2", &[A]), ("n3", &[DAMAGED])]));
        assert_eq!(found[0].right(), Some((Some(A), vec!["n2".into()])));
        assert_eq!(found[0].damaged(), ["n1", "n3"]);
        let all = blocks(&answers([("n1", &[DAMAGED]), ("n2", &[DAMAGED]), ("n3", &[DAMAGED])]));
        assert_eq!(all[0].right(), None);
        let apart = blocks(&answers([("n1", &[DAMAGED]), ("n2", &[A]), ("n3", &[B])]));
        assert_eq!(apart[0].right(), None);
        assert_eq!(apart[0].groups().len(), 3);
    }

    #[test]
    fn behind_the_end_are_holes() {
        let found = blocks(&answers([("n1", &[A]), ("n2", &[A, HOLE]), ("n3", &[A, B])]));
        assert_eq!(found[0].right(), Some((Some(HOLE), vec!["n1".into(), "n2".into()])));
    }

    #[test]
    fn nothing_is_mended_before_all_have_said_so() {
        let before = answers([("n1", &[A]), ("n2", &[B]), ("n3", &[A])]);
        let was = blocks(&before);
        let mut after = answers([("n1", &[A]), ("n2", &[A]), ("n3", &[A])]);
        assert!(is_mended(&was[0], &after, &blocks(&after)));
        after.insert("n2".into(), Err("still doing again what it had done".into()));
        assert!(!is_mended(&was[0], &after, &blocks(&after)));
        after.remove("n2");
        assert!(!is_mended(&was[0], &after, &blocks(&after)));
        assert!(!is_mended(&was[0], &before, &was));
    }

    #[test]
    fn who_can_t_say_what_it_has_is_the_odd_one_out_of_two_that_agree() {
        let mut all = answers([("n1", &[A]), ("n2", &[A]), ("n3", &[A])]);
        let sums = |found: &Found| found.sums.clone();
        all.insert("n2".into(), Err("it can't be read".into()));
        assert_eq!(
            faults(&all, sums),
            (
                vec![vec!["n1".into(), "n3".into()], vec!["n2".into()]],
                Some("n2".into())
            )
        );
        all.insert("n3".into(), Err("it can't be read".into()));
        assert_eq!(faults(&all, sums).1, None);
        let apart = answers([("n1", &[A]), ("n2", &[B]), ("n3", &[A])]);
        let apart = apart.into_iter().filter(|(node, _)| node != "n3");
        let apart = apart.chain([("n3".into(), Err("no".into()))]).collect();
        assert_eq!(
            faults(&apart, sums),
            (vec![vec!["n1".into()], vec!["n2".into()], vec!["n3".into()]], None)
        );
    }

    #[test]
    fn a_missing_key_is_a_difference_up_to_where_all_have_looked() {
        let list = |keys: &[&'static str], next: &'static str| {
            Ok(Found {
                keys: keys.iter().map(|key| (Bytes::from_static(key.as_bytes()), A)).collect(),
                next: Bytes::from_static(next.as_bytes()),
                ..Found::default()
            })
        };
        let answers = Answers::from([
            ("n1".into(), list(&["a", "b"], "c")),
            ("n2".into(), list(&["a", "c"], "d")),
            ("n3".into(), list(&["a", "b"], "c")),
        ]);
        let (found, end) = keys(&answers);
        assert_eq!(end.as_deref(), Some(b"c".as_slice()));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "b");
        assert_eq!(found[0].right(), Some((Some(A), vec!["n1".into(), "n3".into()])));
        assert_eq!(found[0].odd_one_out().as_deref(), Some("n2"));
    }
}
