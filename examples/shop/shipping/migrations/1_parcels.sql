create table parcels (
    id          text   primary key,
    order_id    text   not null unique,
    customer_id text   not null,
    pieces      bigint not null,
    tracking    text   not null,
    shipped_at  bigint not null -- unix ms
);
