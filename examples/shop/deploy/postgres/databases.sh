#!/usr/bin/env bash
# A database and a role for each service, made when the server starts on an empty volume.
#
# A role owns its own database and can connect to no other: a service that wants to know what
# another one knows has to ask it.
set -euo pipefail

for service in catalog inventory payment ordering shipping notification; do
    variable="${service^^}_PASSWORD"
    psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" \
        --dbname postgres -v name="$service" -v password="${!variable}" <<'SQL'
create role :"name" login password :'password'
    nosuperuser nocreatedb nocreaterole noreplication connection limit 50;
create database :"name" owner :"name";
revoke all on database :"name" from public;
SQL
done
