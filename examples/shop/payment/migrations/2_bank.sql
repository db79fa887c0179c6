-- The books of the simulated provider. A real provider has a database of its
-- own; this one shares ours, but never a transaction with us.
--
-- verdict: 'approved', 'declined', 'returned' (approved, then given back) or
-- 'closed' (given back before it was charged).
create table bank_book (
    charge_key   text   not null primary key,
    verdict      text   not null,
    amount_minor bigint not null,
    currency     text   not null
);
