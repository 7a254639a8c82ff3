//! Whether answers are right, counted in the same run that times them.

use std::collections::BTreeMap;

use crate::indexes::{Implementation, KvIndex};
use crate::work::{Credit, Question};

/// Wrong answers of one implementation on one load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) asked: u64,
    pub(crate) wrong: u64,
    /// Workers credited with more than they hold.
    pub(crate) over: u64,
    /// Workers credited with less.
    pub(crate) under: u64,
}

impl Wrong {
    /// Compares an answer with the right one.
    pub(crate) fn check(&mut self, got: &[Credit], right: &[Credit]) {
        self.asked += 1;
        if got == right {
            return;
        }
        self.wrong += 1;
        let got: BTreeMap<u32, u32> = got.iter().copied().collect();
        let right: BTreeMap<u32, u32> = right.iter().copied().collect();
        let more = |a: &BTreeMap<u32, u32>, b: &BTreeMap<u32, u32>| {
            a.iter().filter(|(worker, depth)| b.get(worker).copied().unwrap_or(0) < **depth).count() as u64
        };
        self.over += more(&got, &right);
        self.under += more(&right, &got);
    }

    /// Asks every question and compares.
    pub(crate) fn check_all<I: KvIndex>(&mut self, index: &I, questions: &[Question], queries: &[I::Query]) {
        for (question, query) in questions.iter().zip(queries) {
            self.check(&I::credits(&index.find(query)), &question.right);
        }
    }

    fn add(&mut self, other: Wrong) {
        self.asked += other.asked;
        self.wrong += other.wrong;
        self.over += other.over;
        self.under += other.under;
    }
}

/// Wrong answers by load and implementation.
#[derive(Default)]
pub(crate) struct Answers(BTreeMap<(String, Implementation), Wrong>);

impl Answers {
    pub(crate) fn add(&mut self, load: &str, which: Implementation, wrong: Wrong) {
        self.0.entry((load.to_owned(), which)).or_default().add(wrong);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Implementation, &Wrong)> {
        self.0.iter().map(|((load, which), wrong)| (load.as_str(), *which, wrong))
    }

    /// Wrong answers of one implementation on all loads.
    pub(crate) fn wrong(&self, which: Implementation) -> u64 {
        self.iter().filter(|(_, of, _)| *of == which).map(|(_, _, wrong)| wrong.wrong).sum()
    }

    /// A sentence a load on which kvindex answered wrongly.
    pub(crate) fn ours(&self) -> Vec<String> {
        let bad = self.iter().filter(|(_, which, wrong)| which.is_ours() && wrong.wrong > 0);
        bad.map(|(load, which, wrong)| {
            format!("{} answered {} of {} wrongly on {load}", which.name(), wrong.wrong, wrong.asked)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_and_too_little_are_told_apart() {
        let mut wrong = Wrong::default();
        wrong.check(&[(0, 5), (1, 3)], &[(0, 5), (1, 3)]);
        wrong.check(&[(0, 6), (1, 3)], &[(0, 5), (1, 4), (2, 1)]);
        assert_eq!(wrong, Wrong { asked: 2, wrong: 1, over: 1, under: 2 });
    }
}
