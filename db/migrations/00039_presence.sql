-- +goose Up
SELECT lock_together('devices IN ACCESS EXCLUSIVE');
-- Where the control channel of a device comes from and since when it is connected, or what was so before it went, and
-- why it went. Replicas of the previous version leave the columns as they are.
ALTER TABLE devices ADD COLUMN control_address inet, ADD COLUMN connected_at timestamptz, ADD COLUMN disconnect_reason text;
SELECT event_shows('devices', '{name,kind,region,created_at,expires_at,approved_at,user_code,owner_id,organisation_id,agent_version,platform,public_host,guessed_host,resolved_host,public_addresses,unresolved_since,relay_port,fingerprint,port_first,port_last,players,cordoned,drain_until,control_address,disconnect_reason}');

-- +goose Down
SELECT lock_together('devices IN ACCESS EXCLUSIVE');
SELECT event_shows('devices', '{name,kind,region,created_at,expires_at,approved_at,user_code,owner_id,organisation_id,agent_version,platform,public_host,guessed_host,resolved_host,public_addresses,unresolved_since,relay_port,fingerprint,port_first,port_last,players,cordoned,drain_until}');
ALTER TABLE devices DROP COLUMN disconnect_reason, DROP COLUMN connected_at, DROP COLUMN control_address;
