create table booking (
    id     text primary key,
    seat   text not null unique,
    name   text not null
);
