-- +goose Up
SELECT lock_together('allocations IN ACCESS EXCLUSIVE');
ALTER TABLE allocations ADD COLUMN labels jsonb NOT NULL DEFAULT '{}';
-- Of those that have labels. Reports of devices change none, and stay on the row's page.
CREATE INDEX allocations_labels_idx ON allocations USING gin (labels) WHERE retires IS NULL AND labels <> '{}';
SELECT event_shows('allocations', '{device_id,server_id,protocol,port,local_host,local_port,name,created_at,run_id,proxy_protocol,udp_idle_seconds,player_addresses,rules,server_state,server_reason,client_state,client_reason,target,target_reason,draining,enabled,labels}');
SELECT audit_table('allocations', 'allocation', '{id,name,"",""}',
    '{device_id=deviceId,server_id=serverId,protocol=protocol,port=port,local_host=localHost,local_port=localPort,name=name,enabled=enabled,labels=labels,proxy_protocol=options.proxyProtocol,udp_idle_seconds=options.udpIdleSeconds,player_addresses=options.playerAddresses,rules=rules}',
    inserted => '$.retires IS NULL', updated => '$.retires IS NULL', deleted => '$.retires IS NULL');

-- +goose Down
SELECT lock_together('allocations IN ACCESS EXCLUSIVE');
SELECT audit_table('allocations', 'allocation', '{id,name,"",""}',
    '{device_id=deviceId,server_id=serverId,protocol=protocol,port=port,local_host=localHost,local_port=localPort,name=name,enabled=enabled,proxy_protocol=options.proxyProtocol,udp_idle_seconds=options.udpIdleSeconds,player_addresses=options.playerAddresses,rules=rules}',
    inserted => '$.retires IS NULL', updated => '$.retires IS NULL', deleted => '$.retires IS NULL');
SELECT event_shows('allocations', '{device_id,server_id,protocol,port,local_host,local_port,name,created_at,run_id,proxy_protocol,udp_idle_seconds,player_addresses,rules,server_state,server_reason,client_state,client_reason,target,target_reason,draining,enabled}');
DROP INDEX allocations_labels_idx;
ALTER TABLE allocations DROP COLUMN labels;
