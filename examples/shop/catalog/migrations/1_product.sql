create table product (
    sku         text   not null primary key,
    name        text   not null,
    description text   not null,
    price_minor bigint not null check (price_minor > 0),
    currency    text   not null
);
