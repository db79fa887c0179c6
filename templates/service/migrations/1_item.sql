create table item (
    id   text primary key,
    name text not null unique
);
