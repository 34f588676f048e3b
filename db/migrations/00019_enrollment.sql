-- +goose Up
-- Whether those who will own a tunnel client may approve it. Replicas of the previous version ask for an admin.
ALTER TABLE settings ADD COLUMN owners_approve boolean NOT NULL DEFAULT false;

-- The address from which a pending enrollment was started.
ALTER TABLE devices ADD COLUMN started_address inet;

-- +goose Down
ALTER TABLE devices DROP COLUMN started_address;
ALTER TABLE settings DROP COLUMN owners_approve;
