-- +goose Up
SELECT lock_together('allocations IN ACCESS EXCLUSIVE');
ALTER TABLE allocations ADD COLUMN enabled boolean NOT NULL DEFAULT true;
SELECT event_shows('allocations', '{device_id,server_id,protocol,port,local_host,local_port,name,created_at,run_id,proxy_protocol,udp_idle_seconds,player_addresses,rules,server_state,server_reason,client_state,client_reason,target,target_reason,draining,enabled}');

-- A paused allocation is one whose port has been drained, which closes it on tunnel servers of every version. Replicas
-- of the previous version do not know that it is paused: what they write must not open it. Its old ports are gone, and
-- it gets none when it moves.
-- +goose StatementBegin
CREATE FUNCTION keep_paused() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.draining := true;
    NEW.drained := true;
    NEW.drain_until := coalesce(NEW.drain_until, now());
    NEW.server_state := 'pending';
    NEW.server_reason := '';
    NEW.client_state := 'pending';
    NEW.client_reason := '';
    NEW.target := 'unknown';
    NEW.target_reason := '';
    RETURN NEW;
END;
$$;
CREATE FUNCTION retire_no_paused() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM allocations a WHERE a.id = NEW.retires AND NOT a.enabled) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER allocations_keep_paused BEFORE INSERT OR UPDATE ON allocations
    FOR EACH ROW WHEN (NOT NEW.enabled) EXECUTE FUNCTION keep_paused();
CREATE TRIGGER allocations_retire_no_paused BEFORE INSERT ON allocations
    FOR EACH ROW WHEN (NEW.retires IS NOT NULL) EXECUTE FUNCTION retire_no_paused();

-- What drains is looked for every second.
DROP INDEX allocations_drain_until_idx;
CREATE INDEX allocations_drain_until_idx ON allocations (drain_until) WHERE drain_until IS NOT NULL AND NOT drained;
-- Few are paused or drain: a list of those reads no others.
CREATE INDEX allocations_paused_idx ON allocations (id) WHERE NOT enabled AND retires IS NULL;
CREATE INDEX allocations_draining_idx ON allocations (id) WHERE draining AND enabled AND retires IS NULL;

SELECT audit_table('allocations', 'allocation', '{id,name,"",""}',
    '{device_id=deviceId,server_id=serverId,protocol=protocol,port=port,local_host=localHost,local_port=localPort,name=name,enabled=enabled,proxy_protocol=options.proxyProtocol,udp_idle_seconds=options.udpIdleSeconds,player_addresses=options.playerAddresses,rules=rules}',
    inserted => '$.retires IS NULL', updated => '$.retires IS NULL', deleted => '$.retires IS NULL');

-- +goose Down
SELECT lock_together('allocations IN ACCESS EXCLUSIVE');
DROP TRIGGER allocations_keep_paused ON allocations;
DROP TRIGGER allocations_retire_no_paused ON allocations;
DROP FUNCTION keep_paused();
DROP FUNCTION retire_no_paused();
-- The previous version has no pause: the ports open again.
UPDATE allocations a SET draining = s.drain_until IS NOT NULL, drained = false, drain_until = s.drain_until
    FROM devices s WHERE s.id = a.server_id AND NOT a.enabled;
DROP INDEX allocations_draining_idx;
DROP INDEX allocations_paused_idx;
DROP INDEX allocations_drain_until_idx;
CREATE INDEX allocations_drain_until_idx ON allocations (drain_until) WHERE drain_until IS NOT NULL;
SELECT audit_table('allocations', 'allocation', '{id,name,"",""}',
    '{device_id=deviceId,server_id=serverId,protocol=protocol,port=port,local_host=localHost,local_port=localPort,name=name,proxy_protocol=options.proxyProtocol,udp_idle_seconds=options.udpIdleSeconds,player_addresses=options.playerAddresses,rules=rules}',
    inserted => '$.retires IS NULL', updated => '$.retires IS NULL', deleted => '$.retires IS NULL');
SELECT event_shows('allocations', '{device_id,server_id,protocol,port,local_host,local_port,name,created_at,run_id,proxy_protocol,udp_idle_seconds,player_addresses,rules,server_state,server_reason,client_state,client_reason,target,target_reason,draining}');
ALTER TABLE allocations DROP COLUMN enabled;
