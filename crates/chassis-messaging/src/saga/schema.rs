//! The tables of the sagas.
//!
//! An instance is one row that is rewritten with each transition under a growing
//! `rev`, so that two runners cannot both move it; the log beside it has a line
//! for each. A signal is kept by the saga's key, so it may come before the saga
//! waits for it, or before the saga at all. `wake_at` 0 means at once.
//!
//! `saga_key` is the slot of a key: one row has it. A row that waits for the slot, or gave
//! it up, has a name of its own there and its key in `business_key`.

use chassis_data::Migrations;

pub(crate) fn migrations() -> Migrations {
    Migrations::new("saga")
        .step(
            1,
            "instances",
            "CREATE TABLE chassis_saga (
                id TEXT NOT NULL PRIMARY KEY,
                definition TEXT NOT NULL,
                version BIGINT NOT NULL,
                saga_key TEXT NOT NULL,
                state TEXT NOT NULL,
                backward BIGINT NOT NULL,
                step BIGINT NOT NULL,
                step_name TEXT NOT NULL,
                attempts BIGINT NOT NULL,
                uncertain BIGINT NOT NULL,
                rev BIGINT NOT NULL,
                data TEXT NOT NULL,
                headers TEXT NOT NULL,
                failure TEXT,
                last_error TEXT,
                waiting_for TEXT,
                wait_until BIGINT,
                wake_at BIGINT NOT NULL,
                owner TEXT,
                lease_until BIGINT NOT NULL,
                started_at BIGINT NOT NULL,
                updated_at BIGINT NOT NULL,
                UNIQUE (definition, saga_key)
            )",
        )
        .step(
            2,
            "index of what is due",
            "CREATE INDEX chassis_saga_due ON chassis_saga (definition, wake_at)
                WHERE state IN ('running', 'compensating')",
        )
        .step(
            3,
            "index of what has ended",
            "CREATE INDEX chassis_saga_ended ON chassis_saga (updated_at)
                WHERE state IN ('completed', 'cancelled')",
        )
        .step(
            4,
            "index of what is parked",
            "CREATE INDEX chassis_saga_parked ON chassis_saga (definition) WHERE state = 'parked'",
        )
        .step(
            5,
            "log",
            "CREATE TABLE chassis_saga_log (
                saga_id TEXT NOT NULL,
                n BIGINT NOT NULL,
                time BIGINT NOT NULL,
                step TEXT NOT NULL,
                what TEXT NOT NULL,
                attempt BIGINT NOT NULL,
                error TEXT,
                PRIMARY KEY (saga_id, n)
            )",
        )
        .step(
            6,
            "signals",
            "CREATE TABLE chassis_saga_signal (
                definition TEXT NOT NULL,
                saga_key TEXT NOT NULL,
                event TEXT NOT NULL,
                payload TEXT NOT NULL,
                received_at BIGINT NOT NULL,
                PRIMARY KEY (definition, saga_key, event)
            )",
        )
        .step(
            7,
            "index of signals by age",
            "CREATE INDEX chassis_saga_signal_age ON chassis_saga_signal (received_at)",
        )
        .step(8, "changes in the log", "ALTER TABLE chassis_saga_log ADD COLUMN changes TEXT")
        .step(9, "sagas that share a key", "ALTER TABLE chassis_saga ADD COLUMN business_key TEXT")
        .step(
            10,
            "index of what waits for its key",
            "CREATE INDEX chassis_saga_queued ON chassis_saga (definition, business_key, id)
                WHERE state = 'queued'",
        )
}
