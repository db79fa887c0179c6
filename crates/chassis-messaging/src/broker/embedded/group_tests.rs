//! Tables and a property test of the group's brain.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { messages: 100, bytes: 1 << 20 };

fn message(key: Option<&str>) -> Arc<Message> {
    let mut message = Message::new("greetings", "greeting.v1", "hello");
    message.key = key.map(str::to_owned);
    Arc::new(message)
}

fn group_with(keys: &[Option<&str>]) -> Group {
    let mut group = Group::new(LIMITS, 0, 0, []);
    for (seq, key) in (1..).zip(keys) {
        group.offer(seq, &message(*key));
    }
    group
}

fn take(group: &mut Group, now: i64) -> Option<(Seq, u32)> {
    group.take(now, now + 100, 0).map(|taken| (taken.seq, taken.attempt))
}

#[test]
fn messages_without_key_go_out_together() {
    let mut group = group_with(&[None, None]);
    assert_eq!(take(&mut group, 0), Some((1, 1)));
    assert_eq!(take(&mut group, 0), Some((2, 1)));
    assert_eq!(take(&mut group, 0), None);
}

#[test]
fn a_key_goes_out_one_after_the_other() {
    let mut group = group_with(&[Some("a"), Some("a"), Some("b")]);
    assert_eq!(take(&mut group, 0), Some((1, 1)));
    assert_eq!(take(&mut group, 0), Some((3, 1)));
    assert_eq!(take(&mut group, 0), None);
    group.finish(1);
    assert_eq!(take(&mut group, 0), Some((2, 1)));
}

#[test]
fn a_delayed_message_holds_back_its_key_only() {
    let mut group = group_with(&[Some("a"), Some("a"), Some("b")]);
    assert_eq!(take(&mut group, 0), Some((1, 1)));
    group.give_back(1, 1, 500);
    assert_eq!(take(&mut group, 1), Some((3, 1)));
    assert_eq!(take(&mut group, 1), None);
    assert_eq!(group.next_timer(), Some(101));
    group.finish(3);
    assert_eq!(group.next_timer(), Some(500));
    assert_eq!(take(&mut group, 500), Some((1, 2)));
}

#[test]
fn no_answer_in_time_means_again_and_progress_extends() {
    let mut group = group_with(&[None]);
    assert_eq!(take(&mut group, 0), Some((1, 1)));
    group.extend(1, 1, 150);
    assert_eq!(take(&mut group, 100), None);
    assert_eq!(take(&mut group, 150), Some((1, 2)));
    // The first holder is late: what it asks for is not its to ask any more.
    group.give_back(1, 1, 0);
    group.extend(1, 1, 9000);
    assert_eq!(take(&mut group, 151), None);
    assert_eq!(group.next_timer(), Some(250));
    // But what it finished is finished.
    group.finish(1);
    assert_eq!(take(&mut group, 300), None);
}

#[test]
fn max_deliver_ends_the_redelivery() {
    let mut group = group_with(&[Some("a"), Some("a")]);
    group.set_wishes(Some(2), 1);
    assert_eq!(take(&mut group, 0), Some((1, 1)));
    group.give_back(1, 1, 0);
    assert_eq!(take(&mut group, 0), Some((1, 2)));
    assert_eq!(take(&mut group, 100), Some((2, 1)));
    assert_eq!(group.take_exhausted().len(), 1);
}

#[test]
fn the_floor_follows_the_oldest_unanswered_message() {
    let mut group = group_with(&[None, None, None]);
    for seq in 1..=3 {
        assert_eq!(take(&mut group, 0), Some((seq, 1)));
    }
    group.finish(2);
    let done = Progress { attempts: 0, not_before: 0, done: true };
    let out = Progress { attempts: 1, not_before: 0, done: false };
    assert_eq!(
        group.changes(),
        Changes { floor: None, progress: vec![(1, out), (2, done), (3, out)] }
    );
    group.finish(1);
    assert_eq!(group.changes(), Changes { floor: Some(2), progress: vec![] });
    group.finish(3);
    assert_eq!(group.changes(), Changes { floor: Some(3), progress: vec![] });
}

#[test]
fn a_restart_remembers_answers_attempts_and_delays() {
    let stored = [
        (2, Progress { attempts: 0, not_before: 0, done: true }),
        (3, Progress { attempts: 4, not_before: 0, done: false }),
        (4, Progress { attempts: 1, not_before: 700, done: false }),
    ];
    let mut group = Group::new(LIMITS, 1, 5, stored);
    assert_eq!(group.wants(), Some(1));
    group.fill((2..=5).map(|seq| (seq, message(None))).collect(), 5);
    assert_eq!(group.wants(), None);
    assert_eq!(take(&mut group, 0), Some((3, 5)));
    assert_eq!(take(&mut group, 0), Some((5, 1)));
    assert_eq!(take(&mut group, 0), None);
    group.finish(3);
    group.finish(5);
    assert_eq!(take(&mut group, 700), Some((4, 2)));
}

#[test]
fn a_full_window_leaves_the_rest_on_disk() {
    let mut group = Group::new(Limits { messages: 2, bytes: 1 << 20 }, 0, 0, []);
    for seq in 1..=3 {
        group.offer(seq, &message(None));
    }
    assert_eq!(group.wants(), None);
    assert_eq!(take(&mut group, 0), Some((1, 1)));
    group.finish(1);
    assert_eq!(group.wants(), Some(2));
    // A message stored while the window is behind must not overtake.
    group.offer(4, &message(None));
    assert_eq!(take(&mut group, 0), Some((2, 1)));
    assert_eq!(take(&mut group, 0), None);
    group.fill(vec![(3, message(None)), (4, message(None))], 4);
    assert_eq!(take(&mut group, 0), Some((3, 1)));
}

#[test]
fn what_could_not_be_stored_is_due_again() {
    let mut group = group_with(&[None, None]);
    take(&mut group, 0);
    let before = group.saved_floor();
    let first = group.changes();
    assert!(!group.is_dirty());
    group.not_stored(&first, before);
    assert!(group.is_dirty());
    assert_eq!(group.changes(), first);
}

#[derive(Clone, Debug)]
enum Step {
    Take,
    Finish(usize),
    GiveBack(usize, i64),
    Wait(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Take),
        3 => (0..8usize).prop_map(Step::Finish),
        2 => (0..8usize, 0..300i64).prop_map(|(i, delay)| Step::GiveBack(i, delay)),
        1 => (1..150i64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever happens: one of a key at a time, in order, and all in the end.
    #[test]
    fn order_within_a_key_and_nothing_lost(
        keys in prop::collection::vec(prop::option::of(0..3u8), 1..30),
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let messages: Vec<Arc<Message>> = keys
            .iter()
            .map(|key| message(key.map(|key| key.to_string()).as_deref()))
            .collect();
        let limits = Limits { messages: 5, bytes: 1 << 20 };
        let mut group = Group::new(limits, 0, 0, []);
        let rows = |after: Seq| -> Vec<(Seq, Arc<Message>)> {
            (1..).zip(&messages).filter(|&(seq, _)| seq > after)
                .map(|(seq, message)| (seq, message.clone())).take(3).collect()
        };
        group.fill(vec![], 0);
        let head = messages.len() as Seq;
        for (seq, message) in (1..).zip(&messages) {
            group.offer(seq, message);
        }
        let mut now = 1_000;
        let mut held: Vec<Taken> = vec![];
        let mut finished: Vec<Seq> = vec![];
        let mut saved = (0, BTreeMap::new());
        let finish = |group: &mut Group, finished: &mut Vec<Seq>, taken: Taken| {
            if !finished.contains(&taken.seq) {
                finished.push(taken.seq);
            }
            group.finish(taken.seq);
        };
        let all = steps.into_iter().chain((0..1000).flat_map(|_| [Step::Take, Step::Finish(0)]));
        for step in all {
            while let Some(after) = group.wants() {
                let read = rows(after);
                let to = read.last().map_or(head, |&(seq, _)| seq);
                group.fill(read, to);
            }
            match step {
                Step::Take => match group.take(now, now + 100, 0) {
                    Some(taken) => {
                        if let Some(key) = &taken.message.key {
                            let earlier = (1..taken.seq)
                                .filter(|&seq| messages[seq as usize - 1].key.as_ref() == Some(key));
                            for seq in earlier {
                                prop_assert!(finished.contains(&seq), "{seq} was overtaken");
                            }
                        }
                        prop_assert!(!finished.contains(&taken.seq), "answered, yet again");
                        held.push(taken);
                    }
                    None => now = group.next_timer().unwrap_or(now).max(now),
                },
                Step::Finish(i) if i < held.len() => {
                    let taken = held.remove(i);
                    finish(&mut group, &mut finished, taken);
                }
                Step::GiveBack(i, delay) if i < held.len() => {
                    let taken = held.remove(i);
                    group.give_back(taken.seq, taken.attempt, now + delay);
                }
                Step::Wait(time) => now += time,
                Step::Restart => {
                    let changes = group.changes();
                    if let Some(floor) = changes.floor {
                        saved.0 = floor;
                    }
                    saved.1.extend(changes.progress);
                    saved.1.retain(|&seq, _| seq > saved.0);
                    let stored: Vec<_> = saved.1.iter().map(|(k, v)| (*k, *v)).collect();
                    group = Group::new(limits, saved.0, head, stored);
                    held.clear();
                }
                Step::Finish(_) | Step::GiveBack(..) => {}
            }
            prop_assert!(group.entries.len() <= 5 + 2);
        }
        finished.sort_unstable();
        prop_assert_eq!(finished, (1..=head).collect::<Vec<_>>());
    }
}
