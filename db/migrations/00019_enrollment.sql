-- +goose Up
SELECT lock_together('devices, settings IN ACCESS EXCLUSIVE');
-- Whether those who will own a tunnel client may approve it. Replicas of the previous version ask for an admin.
ALTER TABLE settings ADD COLUMN owners_approve boolean NOT NULL DEFAULT false;

-- started_address is the address from which a pending enrollment was started. spent_code_hash is code_hash
-- after the token was regenerated: not in code_hash, by which replicas of either version look for a device
-- to issue a token to.
ALTER TABLE devices ADD COLUMN started_address inet, ADD COLUMN spent_code_hash bytea;
CREATE UNIQUE INDEX devices_spent_code_hash_idx ON devices (spent_code_hash) WHERE spent_code_hash IS NOT NULL;

-- +goose Down
ALTER TABLE devices DROP COLUMN spent_code_hash, DROP COLUMN started_address;
ALTER TABLE settings DROP COLUMN owners_approve;
