//! How several relays share the partitions of one outbox.
//!
//! Each partition is a row with an owner, a fencing token that grows with each
//! change of owner, and a time at which the lease ends, all on the database's
//! clock. A relay that was paused past its lease finds another token there and
//! its marks change nothing. The share is `partitions / live relays`, rounded
//! up; who holds more gives the rest back, and only when nothing of it is in
//! flight, so that a hand-over needs no time-out.
//!
//! A mark that is still running when the lease ends, say of a relay that died meanwhile, keeps
//! its partitions until it has ended: on PostgreSQL by a lock, on SQLite as the one writer.
//! What it changes after the next owner has read would be seen too late: rows that this one
//! then publishes twice, and what the broker had acknowledged and may have lost, of which
//! the rest of the key must not be published first. The server ends it at the latest after its
//! `statement_timeout` or `idle_in_transaction_timeout`.
//!
//! A `now` that is too old is harmless: it makes a relay take less and renew
//! for a shorter time.

/// One partition as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) part: i64,
    pub(crate) owner: String,
    pub(crate) token: i64,
    /// Unix milliseconds on the database's clock.
    pub(crate) expires_at: i64,
}

/// What a relay should do about the leases now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) renew: Vec<i64>,
    pub(crate) take: Vec<i64>,
    pub(crate) give: Vec<i64>,
}

/// Decides for relay `me`. `live` counts the relays that were seen lately, `me`
/// included; `busy` says whether a row of a partition is in flight.
pub(crate) fn plan(
    me: &str,
    now: i64,
    leases: &[Lease],
    live: usize,
    busy: impl Fn(i64) -> bool,
) -> Plan {
    let share = leases.len().div_ceil(live.max(1));
    let (mine, others): (Vec<&Lease>, Vec<&Lease>) =
        leases.iter().partition(|lease| lease.owner == me);
    let mut plan = Plan::default();
    let mut surplus = mine.len().saturating_sub(share);
    for lease in &mine {
        if surplus > 0 && !busy(lease.part) {
            surplus -= 1;
            plan.give.push(lease.part);
        } else {
            plan.renew.push(lease.part);
        }
    }
    let mut free: Vec<i64> =
        others.iter().filter(|lease| lease.expires_at <= now).map(|lease| lease.part).collect();
    // Relays that start together should not all reach for the same one first.
    if !free.is_empty() {
        let start = usize::try_from(super::partition(me)).unwrap_or(0) % free.len();
        free.rotate_left(start);
    }
    free.truncate(share.saturating_sub(mine.len()));
    plan.take = free;
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lease(part: i64, owner: &str, expires_at: i64) -> Lease {
        Lease { part, owner: owner.to_owned(), token: 1, expires_at }
    }

    #[test]
    fn alone_takes_all_that_is_free() {
        let leases: Vec<_> = (0..4).map(|part| lease(part, "", 0)).collect();
        let mut plan = plan("a", 10, &leases, 1, |_| false);
        plan.take.sort_unstable();
        assert_eq!(plan, Plan { renew: vec![], take: vec![0, 1, 2, 3], give: vec![] });
    }

    #[test]
    fn a_lease_that_holds_is_left_alone() {
        let leases = vec![lease(0, "b", 100), lease(1, "b", 10)];
        let plan = plan("a", 10, &leases, 2, |_| false);
        assert_eq!(plan.take, vec![1], "only the one that ended at 10");
    }

    #[test]
    fn surplus_is_given_back_unless_busy() {
        let leases: Vec<_> = (0..4).map(|part| lease(part, "a", 100)).collect();
        let plan = plan("a", 10, &leases, 2, |part| part == 0);
        assert_eq!(plan, Plan { renew: vec![0, 3], take: vec![], give: vec![1, 2] });
    }

    proptest! {
        /// Relays that come and go end with every partition owned once and in
        /// fair shares.
        #[test]
        fn relays_come_to_share(counts in prop::collection::vec(1usize..6, 1..5)) {
            let mut table: Vec<_> = (0..16).map(|part| lease(part, "", 0)).collect();
            let mut now = 0;
            for live in counts {
                for _round in 0..8 {
                    now += 10;
                    for relay in 0..live {
                        let me = format!("relay-{relay}");
                        let plan = plan(&me, now, &table, live, |_| false);
                        for row in &mut table {
                            if plan.give.contains(&row.part) {
                                row.expires_at = 0;
                                row.owner.clear();
                            } else if plan.renew.contains(&row.part) {
                                row.expires_at = now + 25;
                            } else if plan.take.contains(&row.part) {
                                prop_assert!(row.expires_at <= now, "took a lease that holds");
                                row.owner = me.clone();
                                row.token += 1;
                                row.expires_at = now + 25;
                            }
                        }
                    }
                }
                let share = 16usize.div_ceil(live);
                for relay in 0..live {
                    let held = table.iter().filter(|l| l.owner == format!("relay-{relay}")).count();
                    prop_assert!(held <= share, "{held} of share {share}");
                }
                prop_assert!(table.iter().all(|l| l.expires_at > now), "a partition is free");
            }
        }
    }
}
