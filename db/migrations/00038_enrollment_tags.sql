-- +goose Up
SELECT lock_together('devices IN ACCESS EXCLUSIVE');
-- tag_hash is a hash of the random value by which a page finds the enrollment that it has asked a person to start. It
-- stays once the device is approved, and goes to the next enrollment with the same tag. Replicas of the previous version
-- refuse tags.
ALTER TABLE devices ADD COLUMN tag_hash bytea;
CREATE UNIQUE INDEX devices_tag_hash_key ON devices (tag_hash) WHERE tag_hash IS NOT NULL;

-- +goose Down
ALTER TABLE devices DROP COLUMN tag_hash;
