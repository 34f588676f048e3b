-- +goose Up
-- The pages of a user who owns many devices, or is in an organisation that does: the devices of an owner in the order
-- of the list, and the ids of a device's allocations without the allocations.
SELECT lock_together('devices, allocations IN ACCESS EXCLUSIVE');
DROP INDEX devices_owner_id_idx;
DROP INDEX devices_organisation_id_idx;
DROP INDEX allocations_device_id_idx;
CREATE INDEX devices_owner_id_idx ON devices (owner_id, created_at, id);
CREATE INDEX devices_organisation_id_idx ON devices (organisation_id, created_at, id);
CREATE INDEX allocations_device_id_idx ON allocations (device_id, id) INCLUDE (retires);

-- +goose Down
SELECT lock_together('devices, allocations IN ACCESS EXCLUSIVE');
DROP INDEX devices_owner_id_idx;
DROP INDEX devices_organisation_id_idx;
DROP INDEX allocations_device_id_idx;
CREATE INDEX devices_owner_id_idx ON devices (owner_id);
CREATE INDEX devices_organisation_id_idx ON devices (organisation_id);
CREATE INDEX allocations_device_id_idx ON allocations (device_id);
