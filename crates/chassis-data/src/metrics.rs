//! What a pool shows: connections in use, connections idle, and the wait for one.
//!
//! Names follow the OpenTelemetry semantic conventions for database client connections.

use chassis_core::{Counter, Gauge, Histogram, Metrics, metrics::LATENCY_BUCKETS};
use sqlx::{Database, Pool};

/// Handles, bound once.
pub(crate) struct PoolMetrics {
    used: Gauge,
    idle: Gauge,
    /// Seconds until a connection was free.
    pub(crate) wait: Histogram,
    /// Transactions that ran again after a conflict.
    pub(crate) retries: Counter,
}

impl PoolMetrics {
    pub(crate) fn new(metrics: &Metrics, pool: &str) -> PoolMetrics {
        let connections = |state| {
            metrics.gauge(
                "db_client_connection_count",
                "Connections of the pool by state",
                &[("pool", pool), ("state", state)],
            )
        };
        PoolMetrics {
            used: connections("used"),
            idle: connections("idle"),
            wait: metrics.histogram(
                "db_client_connection_wait_time_seconds",
                "Time until a connection was free",
                &[("pool", pool)],
                LATENCY_BUCKETS,
            ),
            retries: metrics.counter(
                "db_client_transaction_retries",
                "Transactions that ran again after a conflict",
                &[("pool", pool)],
            ),
        }
    }

    /// Reads the pool's counters. Cheap: two atomics.
    pub(crate) fn refresh<DB: Database>(&self, pool: &Pool<DB>) {
        let idle = i64::try_from(pool.num_idle()).unwrap_or(i64::MAX);
        self.idle.set(idle);
        self.used.set((i64::from(pool.size()) - idle).max(0));
    }
}
