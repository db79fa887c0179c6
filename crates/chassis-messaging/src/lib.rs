//! Messages, brokers, consumers, outbox, inbox and sagas.
