-- Pieces by product. The check is the last line of defence: domain.rs decides.
create table stock (
    sku      text   not null primary key,
    on_hand  bigint not null,
    reserved bigint not null default 0,
    check (0 <= reserved and reserved <= on_hand)
);

-- state: 'held' or 'released'. A released row is never deleted: it refuses a
-- forward call that arrives after its own undo.
create table reservation (
    id         text   not null primary key,
    state      text   not null,
    created_at bigint not null,
    changed_at bigint not null
);

create table reservation_line (
    reservation_id text   not null references reservation (id),
    sku            text   not null references stock (sku),
    quantity       bigint not null,
    primary key (reservation_id, sku)
);
