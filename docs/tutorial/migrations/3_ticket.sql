create table ticket (
    id     text primary key,
    seat   text not null,
    status text not null,
    reason text
);
