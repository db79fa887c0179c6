//! The auditor's invariants, each seen broken on evidence that is made up.

use chassis_tests::torture::audit::audit;
use chassis_tests::torture::evidence::{Claim, Effect, Evidence, Expected, Parked, Sent, Stored};

const EXPECTED: &[Expected] = &[Expected { topic: "t", handlers: &["h"] }];

fn sent(id: &str, fate: &str, version: Option<i64>) -> Sent {
    let item = "item".to_owned();
    Sent { id: id.to_owned(), fate: fate.to_owned(), topic: "t".to_owned(), item, version }
}

fn stored(seq: i64, id: &str) -> Stored {
    Stored { seq, id: id.to_owned(), topic: "t".to_owned(), given_up: None }
}

fn effect(id: &str, version: i64, nth: i64) -> Effect {
    let (handler, item) = ("h".to_owned(), "item".to_owned());
    Effect { handler, id: id.to_owned(), item, version: Some(version), nth }
}

fn parked(id: &str, reason: &str) -> Parked {
    Parked { id: id.to_owned(), reason: Some(reason.to_owned()) }
}

fn claim(book: &str, amount: i64, state: &str) -> Claim {
    let purchase = "p".to_owned();
    Claim { book: book.to_owned(), purchase, amount, state: state.to_owned() }
}

/// Two versions, a poison message, a confirmed purchase: all as it should be.
fn clean() -> Evidence {
    Evidence {
        sent: vec![
            sent("a", "handled", Some(1)),
            sent("b", "handled", Some(2)),
            sent("x", "buried", None),
            sent("y", "parked", None),
        ],
        // A repetition is no fault.
        stored: vec![
            stored(1, "a"),
            stored(2, "x"),
            stored(3, "b"),
            stored(4, "a"),
            Stored { given_up: Some("y".to_owned()), ..stored(5, "a word about y") },
        ],
        buried: vec![stored(1, "x")],
        parked: vec![parked("y", "too large")],
        effects: vec![effect("a", 1, 1), effect("b", 2, 2)],
        started: vec!["p".to_owned()],
        ended: vec![("p".to_owned(), "confirmed".to_owned())],
        claims: vec![claim("stock", 3, "taken"), claim("money", 3, "taken")],
        books: vec![("stock".to_owned(), 7, 10), ("money".to_owned(), 7, 10)],
    }
}

#[test]
fn clean_evidence_gives_a_clean_report() {
    let report = audit(&clean(), EXPECTED);
    assert_eq!(report.violations, []);
    let counts = report.counts;
    assert_eq!((counts.sent, counts.poison, counts.unfit), (2, 1, 1));
    assert_eq!((counts.stored, counts.repeated, counts.buried), (5, 1, 1));
    assert_eq!((counts.effects, counts.confirmed, counts.cancelled), (2, 1, 0));
}

#[test]
fn each_invariant_is_seen_broken() {
    type Break = fn(&mut Evidence);
    let cases: [(&[&str], Break); 21] = [
        (&["Lost"], |e| e.stored.retain(|m| m.id != "b")),
        (&["Ghost"], |e| e.stored.push(stored(9, "nobody"))),
        (&["Ghost"], |e| {
            let given_up = Some("a".to_owned());
            e.stored.push(Stored { given_up, ..stored(9, "not parked") });
        }),
        (&["Unhandled"], |e| drop(e.effects.pop())),
        (&["GhostEffect"], |e| e.effects.push(effect("nobody", 3, 3))),
        (&["Twice"], |e| e.effects.push(effect("a", 1, 3))),
        (&["PublishedOutOfOrder"; 2], |e| e.stored.swap(0, 2)),
        (&["HandledOutOfOrder"; 2], |e| {
            e.effects = vec![effect("b", 2, 1), effect("a", 1, 2)];
        }),
        (&["Buried"], |e| e.buried.push(stored(2, "a"))),
        (&["NotBuried"], |e| e.buried.clear()),
        (&["PoisonTookEffect"], |e| {
            e.effects.push(Effect { version: None, ..effect("x", 0, 1) });
        }),
        (&["NotParked"], |e| e.parked.clear()),
        (&["ParkedWithoutReason"], |e| e.parked[0].reason = None),
        (&["Parked"], |e| e.parked.push(parked("a", "a mistake"))),
        (&["PublishedAllTheSame"], |e| e.stored.push(stored(9, "y"))),
        (&["StartedTwice"], |e| e.started.push("p".to_owned())),
        (&["NotEnded"], |e| e.ended.clear()),
        (&["EndedWrongly"], |e| e.ended.push(e.ended[0].clone())),
        (&["EndedWrongly"], |e| e.started.clear()),
        (&["ClaimsDiffer", "BooksDiffer"], |e| e.claims[0].state = "undone".to_owned()),
        (&["BooksDiffer"], |e| e.books[0].1 += 1),
    ];
    for (expected, break_it) in cases {
        let mut evidence = clean();
        break_it(&mut evidence);
        let report = audit(&evidence, EXPECTED);
        let kinds: Vec<String> = report.violations.iter().map(|v| v.kind()).collect();
        assert_eq!(kinds, expected, "{report}");
    }
}

/// Where the broker lost something, a few messages may have come to it out of order; not many.
#[test]
fn little_disorder_is_borne_where_the_broker_lost_something() {
    let disordered = |stored_more: i64| {
        let mut evidence = clean();
        evidence.stored.swap(0, 2);
        evidence.stored.extend((0..stored_more).map(|n| stored(10 + n, "a")));
        audit(&evidence, EXPECTED).may_be_disordered()
    };
    let few = disordered(200);
    assert_eq!((few.violations.as_slice(), few.counts.disordered), (&[][..], 2));
    assert_eq!(disordered(0).kinds()["PublishedOutOfOrder"], 2);
}
