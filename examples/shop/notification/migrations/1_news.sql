create table news (
    customer_id text   not null,
    order_id    text   not null,
    kind        text   not null,
    body        text   not null,
    told_at     bigint not null, -- unix ms
    primary key (customer_id, order_id, kind)
);

create index news_by_customer on news (customer_id, told_at);
