//! Blocks of ports: each attempt has one for the servers that are started in it, the same for its whole life.
//!
//! Nothing here looks whether a port is free: a block is a number that attempts of one data directory do not share.

use crate::id::AttemptId;

/// The environment variable that names the first port of an attempt's block.
pub const PORT_BASE: &str = "WINDLASS_PORT_BASE";

/// From where to where blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first port of the first block.
    pub first: u16,
    /// How many ports a block has.
    pub size: u16,
    /// How many blocks there are; 0 gives out none.
    pub blocks: u16,
}

impl PortRange {
    /// Returns the first port of the block for a new attempt: the one that follows from its id, or the next one that is not
    /// taken. Where all are, it shares the one that follows from its id.
    #[must_use]
    pub fn block_for(&self, attempt: AttemptId, taken: impl Fn(u16) -> bool) -> Option<u16> {
        let blocks = u32::from(self.blocks);
        // The end of an id is random, whenever it was made.
        let [.., a, b, c, d] = *attempt.0.as_bytes();
        let first = u32::from_be_bytes([a, b, c, d]).checked_rem(blocks)?;
        let base = |block: u32| {
            let offset = (block % blocks).checked_mul(u32::from(self.size))?;
            u16::try_from(u32::from(self.first).checked_add(offset)?).ok()
        };
        let free = |block: &u32| base(*block).is_some_and(|base| !taken(base));
        let block = (first..first + blocks).find(free).unwrap_or(first);
        base(block)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const RANGE: PortRange = PortRange { first: 20_000, size: 10, blocks: 1_000 };

    fn attempt(n: u128) -> AttemptId {
        AttemptId(Uuid::from_u128(n))
    }

    #[test]
    fn it_follows_from_the_id_and_lies_in_the_range() {
        assert_eq!(RANGE.block_for(attempt(1_003), |_| false), Some(20_030));
        assert_eq!(RANGE.block_for(attempt(999), |_| false), Some(29_990));
    }

    #[test]
    fn one_that_is_taken_is_passed_over_and_the_last_is_followed_by_the_first() {
        assert_eq!(RANGE.block_for(attempt(3), |base| base == 20_030), Some(20_040));
        assert_eq!(RANGE.block_for(attempt(999), |base| base == 29_990), Some(20_000));
        assert_eq!(RANGE.block_for(attempt(3), |_| true), Some(20_030), "there is no other");
    }

    #[test]
    fn a_range_without_blocks_gives_out_none() {
        let none = PortRange { blocks: 0, ..RANGE };
        assert_eq!(none.block_for(attempt(1), |_| false), None);
    }

    proptest! {
        #[test]
        fn attempts_share_none_while_there_are_enough(ids in proptest::collection::btree_set(any::<u128>(), 1..50)) {
            let range = PortRange { first: 65_000, size: 10, blocks: 50 };
            let mut taken = BTreeSet::new();
            for id in &ids {
                let base = range.block_for(attempt(*id), |base| taken.contains(&base)).unwrap();
                prop_assert!((65_000..=65_490).contains(&base) && base.is_multiple_of(10));
                prop_assert!(taken.insert(base), "{base} twice");
            }
        }
    }
}
