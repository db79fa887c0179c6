//! The statements that are long or differ between the two databases.
//!
//! On PostgreSQL they are written so that there is one sensible plan: what the
//! planner believes of a table that grows and shrinks by the minute is often wrong.

// `seq + 0` stands in the index of pending rows too. By plain `seq` the planner might
// walk along the primary key, over all that is published.
pub(super) const READ_POSTGRES: &str = "SELECT r.*
    FROM unnest(CAST($2 AS BIGINT[])) AS held(part)
    CROSS JOIN LATERAL (
        SELECT seq, o.part, attempts, time, id, source, kind, topic, msg_key, content_type,
            CAST(OCTET_LENGTH(payload) + OCTET_LENGTH(headers) AS BIGINT),
            CASE WHEN OCTET_LENGTH(payload) + OCTET_LENGTH(headers) <= $5 THEN headers END,
            CASE WHEN OCTET_LENGTH(payload) + OCTET_LENGTH(headers) <= $5 THEN payload END
        FROM chassis_outbox o
        WHERE o.part = held.part AND state = 0 AND next_at <= $1
          AND seq NOT IN (SELECT unnest(CAST($3 AS BIGINT[])))
          AND (msg_key IS NULL OR (
            msg_key NOT IN (SELECT json_array_elements_text(CAST($4 AS json)))
            AND msg_key NOT IN (SELECT w.msg_key FROM chassis_outbox w
                WHERE w.state = 0 AND w.next_at > 0 AND w.next_at > $1
                  AND w.msg_key IS NOT NULL)))
        ORDER BY o.part, seq + 0 LIMIT $6) r";

pub(super) const READ_SQLITE: &str =
    "SELECT seq, part, attempts, time, id, source, kind, topic, msg_key,
        content_type, LENGTH(payload) + LENGTH(headers),
        CASE WHEN LENGTH(payload) + LENGTH(headers) <= $5 THEN headers END,
        CASE WHEN LENGTH(payload) + LENGTH(headers) <= $5 THEN payload END
    FROM chassis_outbox
    WHERE state = 0 AND next_at <= $1
      AND part IN (SELECT value FROM json_each($2))
      AND seq NOT IN (SELECT value FROM json_each($3))
      AND (msg_key IS NULL OR (
        msg_key NOT IN (SELECT value FROM json_each($4))
        AND msg_key NOT IN (SELECT w.msg_key FROM chassis_outbox w
            WHERE w.state = 0 AND w.next_at > 0 AND w.next_at > $1
              AND w.msg_key IS NOT NULL)))
    ORDER BY seq LIMIT $6";

// By `state + 0` the index of pending rows is of no use, so that of the keys is left.
//
// The partitions that are held come as the bits of a number, found out once: as a
// join they cost as much as the rows, and invite a look for each row in each partition.
//
// The leases of what is marked stay locked until the commit, so nobody takes a partition over in
// the meantime: the next owner must see these rows as published, and the ends of the streams that
// go with them, before it reads. Where it was faster, the lock shows its token, and not the one of
// when the statement began. It is a lock of the key, beside which a lease can be renewed.
//
// The ends of the streams go with it. They are written last, so that several relays wait for
// each other's hardly at all, and in order, so that they do not wait in a circle.
pub(super) const MARK_POSTGRES: &str = "WITH noted AS (
        INSERT INTO chassis_outbox_tail (stream, slot, at, position, id)
        SELECT n ->> 0, 120, CAST(n ->> 1 AS BIGINT), CAST(n ->> 2 AS BIGINT), n ->> 3
        FROM json_array_elements(CAST($4 AS json)) n ORDER BY n ->> 0
        ON CONFLICT (stream, slot) DO UPDATE
        SET at = excluded.at, position = excluded.position, id = excluded.id
        WHERE chassis_outbox_tail.position < excluded.position)
    UPDATE chassis_outbox o
    SET state = 1, published_at = $1, last_error = NULL
    WHERE o.seq = ANY(CAST($2 AS BIGINT[])) AND o.state + 0 = 0
      AND ((SELECT CAST(COALESCE(SUM(CAST(1 AS BIGINT) << CAST(l.part AS INTEGER)), 0) AS BIGINT)
            FROM (SELECT l.part FROM chassis_outbox_lease l
                JOIN unnest(CAST($3 AS BIGINT[])) WITH ORDINALITY AS t(token, n)
                  ON l.part = t.n - 1 AND l.token = t.token
                ORDER BY l.part FOR KEY SHARE OF l) l) >> CAST(o.part AS INTEGER)) & 1 = 1";

pub(super) const MARK_SQLITE: &str = "UPDATE chassis_outbox
    SET state = 1, published_at = $1, last_error = NULL
    WHERE state = 0 AND seq IN (SELECT value FROM json_each($2))
      AND EXISTS (SELECT 1 FROM chassis_outbox_lease l
        WHERE l.part = chassis_outbox.part
          AND l.token = json_extract($3, '$[' || l.part || ']'))";

pub(super) const NOTE_SQLITE: &str =
    "INSERT INTO chassis_outbox_tail (stream, slot, at, position, id)
    SELECT value ->> 0, 120, value ->> 1, value ->> 2, value ->> 3 FROM json_each($1) WHERE 1
    ON CONFLICT (stream, slot) DO UPDATE
    SET at = excluded.at, position = excluded.position, id = excluded.id
    WHERE chassis_outbox_tail.position < excluded.position";

pub(super) const FAIL_POSTGRES: &str = "UPDATE chassis_outbox
    SET state = $1, attempts = $2, next_at = $3, last_error = $4
    WHERE state = 0 AND seq = $5
      AND EXISTS (SELECT 1 FROM chassis_outbox_lease l
        WHERE l.part = chassis_outbox.part
          AND l.token = CAST(CAST($6 AS json) ->> CAST(l.part AS INTEGER) AS BIGINT)
        FOR KEY SHARE)";

pub(super) const FAIL_SQLITE: &str = "UPDATE chassis_outbox
    SET state = $1, attempts = $2, next_at = $3, last_error = $4
    WHERE state = 0 AND seq = $5
      AND EXISTS (SELECT 1 FROM chassis_outbox_lease l
        WHERE l.part = chassis_outbox.part
          AND l.token = json_extract($6, '$[' || l.part || ']'))";

// A partition of which rows are being marked is left to a later beat: one that waits could not
// renew its own leases. Without `FOR UPDATE` the key would not be locked, and a mark would go on
// beside it under the old token.
pub(super) const TAKE_POSTGRES: &str = "UPDATE chassis_outbox_lease
    SET owner = $1, token = token + 1, expires_at = $2
    WHERE part = (SELECT part FROM chassis_outbox_lease
        WHERE part = $3 AND token = $4 AND expires_at <= $5 FOR UPDATE SKIP LOCKED)";

pub(super) const TAKE_SQLITE: &str = "UPDATE chassis_outbox_lease
    SET owner = $1, token = token + 1, expires_at = $2
    WHERE part = $3 AND token = $4 AND expires_at <= $5";

pub(super) const BACKLOG_POSTGRES: &str = "SELECT
    (SELECT COUNT(*) FROM (SELECT 1 FROM chassis_outbox WHERE state = 0 LIMIT $1) d),
    (SELECT MIN(h.time) FROM generate_series(0, 15) AS held(part)
        CROSS JOIN LATERAL (SELECT time FROM chassis_outbox o
            WHERE o.part = held.part AND state = 0 ORDER BY o.part, seq + 0 LIMIT 1) h),
    (SELECT COUNT(*) FROM (SELECT 1 FROM chassis_outbox WHERE state = 2 LIMIT $1) p)";

pub(super) const BACKLOG_SQLITE: &str = "SELECT
    (SELECT COUNT(*) FROM (SELECT 1 FROM chassis_outbox WHERE state = 0 LIMIT $1) d),
    (SELECT time FROM chassis_outbox WHERE state = 0 ORDER BY seq LIMIT 1),
    (SELECT COUNT(*) FROM (SELECT 1 FROM chassis_outbox WHERE state = 2 LIMIT $1) p)";

pub(super) const LEASES: &str =
    "SELECT part, owner, token, expires_at FROM chassis_outbox_lease ORDER BY part";
