create table letter (
    booking_id text primary key,
    text       text not null
);
