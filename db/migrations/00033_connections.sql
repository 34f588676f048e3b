-- +goose Up
-- The players who are connected, as tunnel servers report them. Counts and round trips change often: rows have space
-- for that on their page, and no index has these columns.
CREATE TABLE connections (
    server_id      uuid        NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    number         bigint      NOT NULL,
    allocation_id  bigint      NOT NULL REFERENCES allocations (id) ON DELETE CASCADE,
    -- The connection of the tunnel server on which it was last reported.
    generation     bigint      NOT NULL,
    source         inet        NOT NULL,
    source_port    integer     NOT NULL,
    since          timestamptz NOT NULL,
    download_bytes bigint      NOT NULL,
    upload_bytes   bigint      NOT NULL,
    -- In milliseconds; NULL where it is not known.
    player_rtt     real,
    tunnel_rtt     real,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    -- Set if somebody has cut it off. It is sent to the tunnel server until that reports its end.
    cut_at         timestamptz,
    PRIMARY KEY (server_id, number)
) WITH (fillfactor = 70);
CREATE INDEX connections_since_idx ON connections (since, server_id, number);
CREATE INDEX connections_allocation_id_idx ON connections (allocation_id);
CREATE INDEX connections_cut_idx ON connections (server_id) WHERE cut_at IS NOT NULL;

-- The sources that may not join an allocation until a time: an address of IPv4, or a /64 of IPv6.
CREATE TABLE kept_out (
    allocation_id bigint      NOT NULL REFERENCES allocations (id) ON DELETE CASCADE,
    source        cidr        NOT NULL,
    until         timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (allocation_id, source)
);
CREATE INDEX kept_out_until_idx ON kept_out (until);

-- The audit trail of both, under the allocation and its owner. It has no addresses of players.
-- +goose StatementBegin
CREATE FUNCTION audit_players() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    old_row jsonb := to_jsonb(OLD);
    new_row jsonb := to_jsonb(NEW);
    actor   jsonb := coalesce(nullif(current_setting('eclitunnel.actor', true), ''), '{}')::jsonb;
    field   text  := TG_ARGV[1];
BEGIN
    INSERT INTO audit_log (actor_kind, actor_id, actor_name, actor_admin, address, action, target_kind, target_id, target_name,
        user_id, organisation_id, changes)
    SELECT coalesce(actor ->> 'kind', 'unknown'), coalesce(actor ->> 'id', ''), coalesce(actor ->> 'name', ''),
        coalesce((actor ->> 'admin')::boolean, false), (actor ->> 'address')::inet, TG_ARGV[0], 'allocation', a.id::text, a.name,
        d.owner_id, d.organisation_id,
        CASE field WHEN '' THEN '{}' ELSE jsonb_build_object(TG_ARGV[2], jsonb_build_array(old_row -> field, new_row -> field)) END
    FROM allocations a JOIN devices d ON d.id = a.device_id WHERE a.id = (coalesce(new_row, old_row) ->> 'allocation_id')::bigint;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER connection_cut AFTER UPDATE OF cut_at ON connections
    FOR EACH ROW WHEN (OLD.cut_at IS NULL AND NEW.cut_at IS NOT NULL) EXECUTE FUNCTION audit_players('connection.close', '', '');
CREATE TRIGGER audit_insert AFTER INSERT ON kept_out
    FOR EACH ROW EXECUTE FUNCTION audit_players('allocation.keep_out', 'until', 'keptOut.until');
CREATE TRIGGER audit_update AFTER UPDATE OF until ON kept_out
    FOR EACH ROW WHEN (OLD.until <> NEW.until) EXECUTE FUNCTION audit_players('allocation.keep_out', 'until', 'keptOut.until');
CREATE TRIGGER audit_delete AFTER DELETE ON kept_out
    FOR EACH ROW WHEN (OLD.until > now()) EXECUTE FUNCTION audit_players('allocation.readmit', 'until', 'keptOut.until');

-- connection_events logs which connections have begun and ended, as the API shows them. Of those that go with their
-- allocation it says nothing: that has an event.
-- +goose StatementBegin
CREATE FUNCTION connection_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_append(jsonb_agg(jsonb_build_object('type', TG_ARGV[0], 'device', a.device_id, 'allocation', a.id, 'payload',
        jsonb_build_object('connection', jsonb_build_object(
            'id', replace(c.server_id::text, '-', '') || '-' || lpad(to_hex(c.number), 16, '0'),
            'allocationId', a.id, 'deviceId', a.device_id, 'serverId', c.server_id, 'protocol', a.protocol,
            'sourceAddress', host(c.source), 'sourcePort', c.source_port,
            'since', to_char(c.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'downloadBytes', c.download_bytes, 'uploadBytes', c.upload_bytes,
            'playerRoundTripMs', c.player_rtt, 'tunnelRoundTripMs', c.tunnel_rtt,
            'asOf', to_char(c.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))) ORDER BY c.since, c.number))
    FROM changed_rows c JOIN allocations a ON a.id = c.allocation_id;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER event_opened AFTER INSERT ON connections REFERENCING NEW TABLE AS changed_rows
    FOR EACH STATEMENT EXECUTE FUNCTION connection_events('connection.opened');
CREATE TRIGGER event_closed AFTER DELETE ON connections REFERENCING OLD TABLE AS changed_rows
    FOR EACH STATEMENT EXECUTE FUNCTION connection_events('connection.closed');

-- +goose Down
DROP TABLE kept_out;
DROP TABLE connections;
DROP FUNCTION audit_players();
DROP FUNCTION connection_events();
