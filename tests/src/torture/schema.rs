//! The workload's tables, the only thing that service and auditor share.
//!
//! `torture_sent` has a row for each message, written in the transaction that sends it.
//! `torture_effect` has one for each effect, written in the handler's transaction, and no
//! constraint: what happens twice must be seen twice. `nth` counts the effects of a
//! handler on an item under a row lock, so it is the order of their commits, which a
//! sequence is not.

use chassis::data::Migrations;

/// What was on the shelf and in the accounts at the beginning, each.
pub const OPENING: i64 = 1_000_000;
/// How many shelves and accounts there are.
pub const ACCOUNTS: i64 = 5;

/// The tables of the workload.
#[must_use]
pub fn migrations() -> Migrations {
    let text = [
        "CREATE TABLE torture_item (item TEXT NOT NULL PRIMARY KEY, version BIGINT NOT NULL)",
        "CREATE TABLE torture_sent (
            message_id TEXT NOT NULL PRIMARY KEY, fate TEXT NOT NULL, topic TEXT NOT NULL,
            item TEXT NOT NULL, version BIGINT)",
        "CREATE TABLE torture_seen (
            handler TEXT NOT NULL, item TEXT NOT NULL, effects BIGINT NOT NULL,
            PRIMARY KEY (handler, item))",
        "CREATE TABLE torture_effect (
            handler TEXT NOT NULL, message_id TEXT NOT NULL, item TEXT NOT NULL,
            version BIGINT, nth BIGINT NOT NULL)",
        "CREATE TABLE torture_book (
            book TEXT NOT NULL, line TEXT NOT NULL, amount BIGINT NOT NULL,
            PRIMARY KEY (book, line))",
        "CREATE TABLE torture_claim (
            book TEXT NOT NULL, purchase TEXT NOT NULL, line TEXT NOT NULL, amount BIGINT NOT NULL,
            state TEXT NOT NULL, PRIMARY KEY (book, purchase))",
        "CREATE TABLE torture_started (purchase TEXT NOT NULL)",
        "CREATE TABLE torture_ended (purchase TEXT NOT NULL, outcome TEXT NOT NULL)",
    ];
    let names = ["items", "sent", "seen", "effects", "books", "claims", "started", "ended"];
    let tables = text.into_iter().zip(names).enumerate();
    let tables = tables.fold(Migrations::new("torture"), |all, (index, (sql, name))| {
        all.step(i64::try_from(index).unwrap_or(i64::MAX).saturating_add(1), name, sql)
    });
    tables.step(
        9,
        "opening balances",
        "INSERT INTO torture_book (book, line, amount) VALUES
            ('stock', '0', 1000000), ('stock', '1', 1000000), ('stock', '2', 1000000),
            ('stock', '3', 1000000), ('stock', '4', 1000000),
            ('money', '0', 1000000), ('money', '1', 1000000), ('money', '2', 1000000),
            ('money', '3', 1000000), ('money', '4', 1000000)",
    )
}
