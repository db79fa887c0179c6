//! Database pools, transactions that survive cancellation, and migrations.
