//! Sets of partitions: which are held, which should be read.
//!
//! There are few, so a set is the bits of a number.

/// How many partitions the keys are spread over. The partition of rows that wait
/// depends on it, so it never changes.
pub(crate) const PARTITIONS: usize = 16;

/// A set of partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts(u16);

impl Parts {
    pub(crate) const NONE: Parts = Parts(0);
    pub(crate) const ALL: Parts = Parts(u16::MAX);

    pub(crate) fn insert(&mut self, part: i64) {
        self.0 |= bit(part);
    }

    pub(crate) fn remove(&mut self, part: i64) {
        self.0 &= !bit(part);
    }

    pub(crate) fn contains(self, part: i64) -> bool {
        self.0 & bit(part) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn and(self, other: Parts) -> Parts {
        Parts(self.0 & other.0)
    }

    pub(crate) fn or(self, other: Parts) -> Parts {
        Parts(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Parts) -> Parts {
        Parts(self.0 & !other.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = i64> {
        (0..PARTITIONS as i64).filter(move |&part| self.contains(part))
    }

    /// As text for other processes.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Parts {
        Parts(bits)
    }
}

impl FromIterator<i64> for Parts {
    fn from_iter<I: IntoIterator<Item = i64>>(parts: I) -> Parts {
        let mut set = Parts::NONE;
        parts.into_iter().for_each(|part| set.insert(part));
        set
    }
}

/// The bit of a partition; none for one that does not exist.
fn bit(part: i64) -> u16 {
    u32::try_from(part).ok().and_then(|part| 1_u16.checked_shl(part)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut parts: Parts = [0, 3, 15, 16, -1].into_iter().collect();
        assert_eq!(parts.iter().collect::<Vec<_>>(), [0, 3, 15]);
        parts.remove(3);
        assert_eq!((parts.len(), parts.contains(3), parts.contains(15)), (2, false, true));
        assert_eq!(Parts::ALL.without(parts).len(), 14);
        assert_eq!(Parts::from_bits(parts.bits()), parts);
        assert!(parts.and(Parts::NONE).is_empty());
    }
}
