-- +goose Up
-- All columns have defaults, because the previous version runs beside this one during an upgrade.
ALTER TABLE devices
    ADD COLUMN cordoned    boolean NOT NULL DEFAULT false,
    ADD COLUMN drain_until timestamptz,
    ADD COLUMN drain_move  boolean NOT NULL DEFAULT false,
    -- The last report of a tunnel server; NULL until it reports after connecting.
    ADD COLUMN players     integer,
    ADD CONSTRAINT devices_draining_is_cordoned CHECK (drain_until IS NULL OR cordoned);
CREATE INDEX devices_draining_idx ON devices (id) WHERE drain_until IS NOT NULL;

-- A row that retires another one holds the old port of a moved allocation, for the players who are still
-- on it. It is in the same table so that one constraint covers all ports.
ALTER TABLE allocations
    ADD COLUMN retires     bigint REFERENCES allocations (id) ON DELETE CASCADE,
    -- When the last players are cut off; NULL if the port does not drain.
    ADD COLUMN drain_until timestamptz,
    -- The port accepts no new players.
    ADD COLUMN draining    boolean NOT NULL DEFAULT false,
    -- The port has no players left.
    ADD COLUMN drained     boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT allocations_retired_drain CHECK (retires IS NULL OR (drain_until IS NOT NULL AND NOT drained)),
    ADD CONSTRAINT allocations_draining_ends CHECK (NOT draining OR drain_until IS NOT NULL),
    ADD CONSTRAINT allocations_drained_drain CHECK (NOT drained OR draining);
CREATE UNIQUE INDEX allocations_retires_key ON allocations (retires, server_id) WHERE retires IS NOT NULL;
CREATE INDEX allocations_drain_until_idx ON allocations (drain_until) WHERE drain_until IS NOT NULL;

-- +goose Down
DELETE FROM allocations WHERE retires IS NOT NULL;
DROP INDEX allocations_drain_until_idx;
DROP INDEX allocations_retires_key;
ALTER TABLE allocations
    DROP COLUMN retires,
    DROP COLUMN drain_until,
    DROP COLUMN draining,
    DROP COLUMN drained;
DROP INDEX devices_draining_idx;
ALTER TABLE devices
    DROP COLUMN cordoned,
    DROP COLUMN drain_until,
    DROP COLUMN drain_move,
    DROP COLUMN players;
