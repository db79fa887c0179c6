#!/usr/bin/env bash
# What the official image's entrypoint does with the variables that compose.yaml sets: the
# first start makes the cluster and runs the scripts of docker-entrypoint-initdb.d.
set -euo pipefail

as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

chown postgres:postgres "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    install -o postgres -m 600 /dev/null /run/password
    printf '%s\n' "$POSTGRES_PASSWORD" >/run/password
    as_postgres initdb --username=postgres --auth-local=trust --auth-host=scram-sha-256 \
        --pwfile=/run/password >/dev/null
    rm /run/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    as_postgres pg_ctl --wait --silent --options="-c listen_addresses=''" start
    for script in /docker-entrypoint-initdb.d/*.sh; do
        PGUSER=postgres bash "$script"
    done
    as_postgres pg_ctl --wait --silent --mode=fast stop
fi
exec setpriv --reuid postgres --regid postgres --init-groups \
    postgres -c listen_addresses='*' "$@"
