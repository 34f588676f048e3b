-- +goose Up
-- What devices are asked to find out for a check of an allocation, and what they have answered: for seconds, and not
-- worth the write-ahead log. A replica of the previous version that holds a device's control channel leaves its rows
-- unanswered.
CREATE UNLOGGED TABLE probes (
    id         uuid        PRIMARY KEY,
    device_id  uuid        NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    question   jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent       boolean     NOT NULL DEFAULT false,
    -- NULL until the device has answered. JSON's null means that the device does not take probes.
    answer     jsonb
);
CREATE INDEX probes_device_id_idx ON probes (device_id);
CREATE INDEX probes_created_at_idx ON probes (created_at);

-- +goose Down
DROP TABLE probes;
