//! Tower layers for failure: timeout, retry, circuit breaker, bulkhead, rate limit.
