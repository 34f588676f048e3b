-- +goose Up
-- The log of events: a row for each change of a device or an allocation that the API shows, and for what else people
-- want to know at once. It is short, and has no foreign keys: see PruneEvents.
--
-- Ids have the order in which the transactions commit, and no gaps that are filled later: who has read up to an id has
-- read all before it. So they are given at the end of a transaction, under the lock of the one row of event_counter,
-- which is the last row that the transaction locks. What it has changed is kept until then in the setting
-- eclitunnel.events of the transaction, as JSON objects separated by commas. Triggers write it, since replicas of the
-- previous version change the same tables.
CREATE TABLE events (
    id                       bigint      PRIMARY KEY,
    at                       timestamptz NOT NULL,
    type                     text        NOT NULL,
    device_id                uuid,
    allocation_id            bigint,
    -- Whose the device is, or was when it was deleted.
    user_id                  bigint,
    organisation_id          bigint,
    -- Set if this is the transfer of the device to another owner: whose it was before. Both columns may be NULL.
    transferred              boolean     NOT NULL DEFAULT false,
    previous_user_id         bigint,
    previous_organisation_id bigint,
    -- Further fields of the event; NULL where a device or an allocation is read instead.
    payload                  jsonb       CHECK (jsonb_typeof(payload) = 'object')
);
CREATE TABLE event_counter (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    last bigint  NOT NULL
);
INSERT INTO event_counter (last) VALUES (0);
-- A row of it has events written when its transaction commits, and goes with that.
CREATE UNLOGGED TABLE event_commits (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
);
-- The expiry of the lease is in the log. The previous version neither reads nor writes it.
ALTER TABLE replicas ADD COLUMN lapsed boolean NOT NULL DEFAULT false;

-- event_epoch changes when ids may be given twice: another database, a backup that was restored, a standby that took
-- over and may lack the last transactions. Where the server does not tell, it is that of the panel.
-- +goose StatementBegin
CREATE FUNCTION event_epoch() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    panel    text := (SELECT s.panel_id FROM settings s);
    cluster  text := '';
    timeline text := '';
BEGIN
    BEGIN
        cluster := (SELECT c.system_identifier FROM pg_control_system() c);
        timeline := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
    EXCEPTION WHEN OTHERS THEN -- Not permitted, or not this kind of server.
    END;
    RETURN left(md5(concat_ws('/', panel, cluster, timeline)), 8);
END;
$$;
-- +goose StatementEnd

-- event_record adds to what is written when the transaction commits.
-- +goose StatementBegin
CREATE FUNCTION event_record(changes text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before text := current_setting('eclitunnel.events', true);
BEGIN
    IF changes IS NULL THEN
        RETURN;
    END IF;
    IF before IS NULL OR before = '' THEN
        INSERT INTO event_commits DEFAULT VALUES;
        PERFORM set_config('eclitunnel.events', changes, true);
    ELSE
        PERFORM set_config('eclitunnel.events', before || ',' || changes, true);
    END IF;
END;
$$;
-- +goose StatementEnd

-- event_append adds events that are no changes of rows: objects with a type, and device, allocation, user,
-- organisation and payload where there are such. Of a device or an allocation that exists the owner is known.
-- +goose StatementBegin
CREATE FUNCTION event_append(entries jsonb) RETURNS void LANGUAGE sql AS $$
    SELECT event_record((SELECT string_agg((jsonb_build_object('of', 'other') || e.entry)::text, ',' ORDER BY e.n)
        FROM jsonb_array_elements(entries) WITH ORDINALITY AS e (entry, n)));
$$;
-- +goose StatementEnd

-- Columns whose changes the API does not show are named here, so that a new column is shown unless it is named too.
-- Presence is compared by replica_id when the transaction commits.
-- +goose StatementBegin
CREATE FUNCTION event_device_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    hidden CONSTANT text[] := '{code_hash,spent_code_hash,started_from,started_address,polled_at,token_version,token_key,
        token_key_version,generation,first_connected_at,last_seen_at,replica_id,called_from,host_due,kept_rules,embedded_name,
        drain_move}';
BEGIN
    CASE TG_OP
    WHEN 'INSERT' THEN
        PERFORM event_record(string_agg(jsonb_build_object('of', 'device', 'op', 'insert', 'id', n.id)::text, ',')) FROM new_rows n;
    WHEN 'DELETE' THEN
        PERFORM event_record(string_agg(jsonb_build_object('of', 'device', 'op', 'delete', 'id', o.id,
            'user', o.owner_id, 'organisation', o.organisation_id)::text, ',')) FROM old_rows o;
    ELSE
        PERFORM event_record(string_agg(c.change::text, ',')) FROM (
            SELECT jsonb_build_object('of', 'device', 'op', 'update', 'id', n.id, 'shown', d.shown)
                || CASE WHEN o.replica_id IS DISTINCT FROM n.replica_id
                    THEN jsonb_build_object('presence', true, 'replica', o.replica_id) ELSE '{}' END
                || CASE WHEN (o.owner_id, o.organisation_id) IS DISTINCT FROM (n.owner_id, n.organisation_id)
                    THEN jsonb_build_object('transfer', true, 'user', o.owner_id, 'organisation', o.organisation_id) ELSE '{}' END
                || CASE WHEN (o.public_host, o.resolved_host, o.public_addresses) IS DISTINCT FROM (n.public_host, n.resolved_host, n.public_addresses)
                    THEN jsonb_build_object('host', true) ELSE '{}' END AS change
            FROM old_rows o JOIN new_rows n ON n.id = o.id
            CROSS JOIN LATERAL (SELECT to_jsonb(o) - hidden IS DISTINCT FROM to_jsonb(n) - hidden AS shown) d
            WHERE d.shown OR o.replica_id IS DISTINCT FROM n.replica_id) AS c;
    END CASE;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd

-- Rows that retire others are not shown. But a tunnel server that drains has drained when its last port has.
-- +goose StatementBegin
CREATE FUNCTION event_allocation_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    hidden CONSTANT text[] := '{drained,drain_until,retires}';
BEGIN
    CASE TG_OP
    WHEN 'INSERT' THEN
        PERFORM event_record(string_agg(jsonb_build_object('of', 'allocation', 'op', 'insert', 'id', n.id,
            'hidden', n.retires IS NOT NULL, 'servers', jsonb_build_array(n.server_id))::text, ',')) FROM new_rows n;
    WHEN 'DELETE' THEN
        PERFORM event_record(string_agg(jsonb_build_object('of', 'allocation', 'op', 'delete', 'id', o.id,
            'hidden', o.retires IS NOT NULL, 'servers', jsonb_build_array(o.server_id),
            'device', o.device_id, 'user', d.owner_id, 'organisation', d.organisation_id)::text, ','))
        FROM old_rows o LEFT JOIN devices d ON d.id = o.device_id;
    ELSE
        PERFORM event_record(string_agg(c.change::text, ',')) FROM (
            SELECT jsonb_build_object('of', 'allocation', 'op', 'update', 'id', n.id, 'shown', d.shown, 'hidden', n.retires IS NOT NULL)
                || CASE WHEN d.port THEN jsonb_build_object('servers', jsonb_build_array(o.server_id, n.server_id)) ELSE '{}' END AS change
            FROM old_rows o JOIN new_rows n ON n.id = o.id
            CROSS JOIN LATERAL (SELECT n.retires IS NULL AND to_jsonb(o) - hidden IS DISTINCT FROM to_jsonb(n) - hidden AS shown,
                (o.server_id, o.drained) IS DISTINCT FROM (n.server_id, n.drained) AS port) d
            WHERE d.shown OR d.port) AS c;
    END CASE;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd

-- A lease that has lapsed and is renewed has not lapsed any more.
-- +goose StatementBegin
CREATE FUNCTION event_replica_renewed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.lapsed := false;
    RETURN NEW;
END;
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION event_replica_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_record(jsonb_build_object('of', 'replica', 'id', NEW.id)::text);
    RETURN NULL;
END;
$$;
-- +goose StatementEnd

-- event_write writes the events of the transaction. Each row has one, whatever the number of its changes. Owners and
-- presence are read under the lock of the counter, and so are those of this place in the log.
-- +goose StatementBegin
CREATE FUNCTION event_write() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changes jsonb := ('[' || coalesce(current_setting('eclitunnel.events', true), '') || ']')::jsonb;
    before  bigint;
    written bigint;
BEGIN
    PERFORM set_config('eclitunnel.events', '', true);
    DELETE FROM event_commits c WHERE c.id = NEW.id;
    SELECT c.last INTO before FROM event_counter c FOR NO KEY UPDATE;

    WITH change AS (
        SELECT e.n, e.c, e.c ->> 'of' AS kind, e.c ->> 'op' AS op FROM jsonb_array_elements(changes) WITH ORDINALITY AS e (c, n)),
    changed_device AS (
        SELECT (c ->> 'id')::uuid AS id, bool_or(op = 'insert') AS made, bool_or(op = 'delete') AS gone,
            coalesce(bool_or((c ->> 'shown')::boolean), false) AS shown, coalesce(bool_or((c ->> 'host')::boolean), false) AS host,
            bool_or(c ? 'presence') AS presence, (array_agg((c ->> 'replica')::uuid ORDER BY n) FILTER (WHERE c ? 'presence'))[1] AS replica,
            (array_agg(c ORDER BY n) FILTER (WHERE c ? 'transfer'))[1] AS transfer,
            (array_agg(c ORDER BY n) FILTER (WHERE op = 'delete'))[1] AS deletion
        FROM change WHERE kind = 'device' GROUP BY 1),
    -- Those that have come or gone: by themselves, or with their replica.
    presence AS (
        SELECT d.id FROM changed_device x JOIN devices d ON d.id = x.id
        WHERE x.presence AND NOT x.made
            AND EXISTS (SELECT FROM replicas r WHERE r.id = x.replica AND NOT r.lapsed)
                <> EXISTS (SELECT FROM replicas r WHERE r.id = d.replica_id AND NOT r.lapsed)
        UNION
        SELECT d.id FROM change x JOIN devices d ON d.replica_id = (x.c ->> 'id')::uuid WHERE x.kind = 'replica'),
    -- Tunnel servers that drain, and may have drained by this.
    drains AS (
        SELECT d.id FROM (SELECT s.id::uuid AS id, bool_or(x.op = 'insert') AS made
            FROM change x CROSS JOIN jsonb_array_elements_text(x.c -> 'servers') AS s (id) WHERE x.kind = 'allocation' GROUP BY 1) AS s
        JOIN devices d ON d.id = s.id AND d.drain_until IS NOT NULL
        WHERE s.made OR NOT EXISTS (SELECT FROM allocations a WHERE a.server_id = d.id AND NOT a.drained)),
    device AS (
        SELECT coalesce(x.id, o.id) AS id, coalesce(x.made, false) AS made, coalesce(x.gone, false) AS gone, x.transfer, x.deletion
        FROM (SELECT * FROM changed_device WHERE made OR gone OR shown) AS x
        FULL JOIN (SELECT id FROM presence UNION SELECT id FROM drains) AS o ON o.id = x.id
        WHERE NOT coalesce(x.made AND x.gone, false)),
    changed_allocation AS (
        SELECT (c ->> 'id')::bigint AS id, bool_or(op = 'insert') AS made, bool_or(op = 'delete') AS gone,
            (array_agg(c ORDER BY n) FILTER (WHERE op = 'delete'))[1] AS deletion
        FROM change WHERE kind = 'allocation' AND NOT (c ->> 'hidden')::boolean AND coalesce((c ->> 'shown')::boolean, true) GROUP BY 1),
    -- Those that show their devices' presence or host, or go with them to another owner.
    dependent AS (
        SELECT a.id FROM presence p JOIN allocations a ON a.device_id = p.id WHERE a.retires IS NULL
        UNION
        SELECT a.id FROM (SELECT id FROM presence UNION SELECT id FROM changed_device WHERE host) AS s
        JOIN allocations a ON a.server_id = s.id WHERE a.retires IS NULL
        UNION
        SELECT a.id FROM device x JOIN allocations a ON a.device_id = x.id WHERE x.transfer IS NOT NULL AND a.retires IS NULL),
    allocation AS (
        SELECT coalesce(x.id, o.id) AS id, coalesce(x.made, false) AS made, coalesce(x.gone, false) AS gone, x.deletion
        FROM changed_allocation x FULL JOIN dependent o ON o.id = x.id WHERE NOT coalesce(x.made AND x.gone, false)),
    event AS (
        SELECT CASE WHEN x.gone THEN 3 ELSE 1 END AS turn, 0 AS n,
            CASE WHEN x.gone THEN 'device.deleted' WHEN x.made THEN 'device.created' ELSE 'device.updated' END AS type,
            x.id AS device_id, NULL::bigint AS allocation_id,
            CASE WHEN x.gone THEN (x.deletion ->> 'user')::bigint ELSE d.owner_id END AS user_id,
            CASE WHEN x.gone THEN (x.deletion ->> 'organisation')::bigint ELSE d.organisation_id END AS organisation_id,
            CASE WHEN NOT x.made AND NOT x.gone THEN x.transfer END AS transfer, NULL::jsonb AS payload
        FROM device x LEFT JOIN devices d ON d.id = x.id
        UNION ALL
        SELECT 2, 0,
            CASE WHEN x.gone THEN 'allocation.deleted' WHEN x.made THEN 'allocation.created' ELSE 'allocation.updated' END,
            coalesce(a.device_id, (x.deletion ->> 'device')::uuid), x.id,
            CASE WHEN x.gone THEN coalesce((x.deletion ->> 'user')::bigint, (g.deletion ->> 'user')::bigint) ELSE d.owner_id END,
            CASE WHEN x.gone THEN coalesce((x.deletion ->> 'organisation')::bigint, (g.deletion ->> 'organisation')::bigint) ELSE d.organisation_id END,
            CASE WHEN NOT x.made AND NOT x.gone THEN t.transfer END, NULL
        FROM allocation x LEFT JOIN allocations a ON a.id = x.id LEFT JOIN devices d ON d.id = a.device_id
        LEFT JOIN device t ON t.id = a.device_id AND NOT t.made
        LEFT JOIN device g ON g.id = (x.deletion ->> 'device')::uuid AND g.gone
        UNION ALL
        SELECT 4, x.n, x.c ->> 'type', d.id, (x.c ->> 'allocation')::bigint,
            CASE WHEN x.c ? 'user' OR x.c ? 'organisation' THEN (x.c ->> 'user')::bigint ELSE d.owner_id END,
            CASE WHEN x.c ? 'user' OR x.c ? 'organisation' THEN (x.c ->> 'organisation')::bigint ELSE d.organisation_id END,
            NULL, x.c -> 'payload'
        FROM (SELECT change.*, coalesce((c ->> 'device')::uuid, a.device_id) AS device_id
            FROM change LEFT JOIN allocations a ON a.id = (c ->> 'allocation')::bigint WHERE kind = 'other') AS x
        LEFT JOIN devices d ON d.id = x.device_id)
    INSERT INTO events (id, at, type, device_id, allocation_id, user_id, organisation_id, transferred, previous_user_id, previous_organisation_id, payload)
    SELECT before + row_number() OVER (ORDER BY e.turn, e.n, e.device_id, e.allocation_id), clock_timestamp(), e.type, e.device_id, e.allocation_id,
        e.user_id, e.organisation_id, e.transfer IS NOT NULL, (e.transfer ->> 'user')::bigint, (e.transfer ->> 'organisation')::bigint, e.payload
    FROM event e;
    GET DIAGNOSTICS written = ROW_COUNT;

    IF written > 0 THEN
        UPDATE event_counter SET last = before + written;
        -- Not a channel of the previous version, which would take it for a change of everything.
        PERFORM pg_notify('eclitunnel_live', 'events');
    END IF;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER event_write AFTER INSERT ON event_commits
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION event_write();

SELECT lock_together('devices, allocations, replicas IN SHARE ROW EXCLUSIVE');
CREATE TRIGGER event_insert AFTER INSERT ON devices REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION event_device_change();
CREATE TRIGGER event_update AFTER UPDATE ON devices REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION event_device_change();
CREATE TRIGGER event_delete AFTER DELETE ON devices REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION event_device_change();
CREATE TRIGGER event_insert AFTER INSERT ON allocations REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION event_allocation_change();
CREATE TRIGGER event_update AFTER UPDATE ON allocations REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION event_allocation_change();
CREATE TRIGGER event_delete AFTER DELETE ON allocations REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION event_allocation_change();
CREATE TRIGGER event_renewed BEFORE UPDATE ON replicas
    FOR EACH ROW WHEN (OLD.lapsed AND NEW.lease_expires_at > now()) EXECUTE FUNCTION event_replica_renewed();
CREATE TRIGGER event_update AFTER UPDATE ON replicas
    FOR EACH ROW WHEN (OLD.lapsed <> NEW.lapsed) EXECUTE FUNCTION event_replica_change();

-- +goose Down
SELECT lock_together('devices, allocations, replicas IN ACCESS EXCLUSIVE');
DROP TRIGGER event_insert ON devices;
DROP TRIGGER event_update ON devices;
DROP TRIGGER event_delete ON devices;
DROP TRIGGER event_insert ON allocations;
DROP TRIGGER event_update ON allocations;
DROP TRIGGER event_delete ON allocations;
DROP TRIGGER event_renewed ON replicas;
DROP TRIGGER event_update ON replicas;
DROP TABLE event_commits;
DROP FUNCTION event_write();
DROP FUNCTION event_replica_change();
DROP FUNCTION event_replica_renewed();
DROP FUNCTION event_allocation_change();
DROP FUNCTION event_device_change();
DROP FUNCTION event_append(jsonb);
DROP FUNCTION event_record(text);
DROP FUNCTION event_epoch();
ALTER TABLE replicas DROP COLUMN lapsed;
DROP TABLE event_counter;
DROP TABLE events;
