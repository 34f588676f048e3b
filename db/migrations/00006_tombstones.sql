-- +goose Up
-- The identity of the panel is that of its database: a device can tell it from an empty or foreign one.
ALTER TABLE settings ADD COLUMN panel_id uuid NOT NULL DEFAULT gen_random_uuid();

-- What was deleted or revoked on purpose. A device or key that is neither here nor in its own table is
-- unknown, as in an empty database before a restore. code_hash is set where an admin denied the enrollment.
CREATE TABLE deleted_devices (
    id         uuid PRIMARY KEY,
    code_hash  bytea,
    deleted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX deleted_devices_code_hash_idx ON deleted_devices (code_hash);
CREATE TABLE revoked_signing_keys (
    id         text PRIMARY KEY,
    revoked_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE revoked_signing_keys;
DROP TABLE deleted_devices;
ALTER TABLE settings DROP COLUMN panel_id;
