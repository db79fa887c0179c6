create table orders (
    id          text   primary key,
    customer_id text   not null,
    status      text   not null,
    reason      text,
    total_minor bigint,
    currency    text,
    trace_id    text   not null,
    placed_at   bigint not null, -- unix ms
    changed_at  bigint not null  -- unix ms
);

create index orders_by_customer on orders (customer_id, placed_at);

create table order_lines (
    order_id text   not null references orders (id),
    position bigint not null,
    sku      text   not null,
    quantity bigint not null,
    primary key (order_id, position)
);

-- Which order a request with a key has made. The fingerprint tells a repeated request from
-- another one with the same key.
create table order_requests (
    customer_id     text   not null,
    idempotency_key text   not null,
    fingerprint     text   not null,
    order_id        text   not null,
    made_at         bigint not null, -- unix ms
    primary key (customer_id, idempotency_key)
);
