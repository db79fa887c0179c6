-- One row for each order: that an order is charged once is this primary key.
--
-- state: 'charging', 'charged', 'declined', 'refunding', 'refunded', or
-- 'barred' (a refund came before any charge; the other columns are empty).
create table payment (
    order_id        text   not null primary key,
    payment_id      text   not null,
    idempotency_key text   not null,
    amount_minor    bigint not null,
    currency        text   not null,
    card_token      text   not null,
    state           text   not null,
    created_at      bigint not null,
    changed_at      bigint not null
);

-- What crashed halfway is looked for by state and age.
create index payment_unsettled on payment (state, changed_at);
