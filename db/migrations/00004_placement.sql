-- +goose Up
-- A version that does not know these columns runs beside this one for a while: all have defaults.
ALTER TABLE devices
    ADD COLUMN cordoned    boolean NOT NULL DEFAULT false,
    ADD COLUMN drain_until timestamptz,
    ADD COLUMN drain_move  boolean NOT NULL DEFAULT false,
    -- What a tunnel server last reported; NULL until it has since it connected.
    ADD COLUMN players     integer,
    ADD CONSTRAINT devices_draining_is_cordoned CHECK (drain_until IS NULL OR cordoned);
CREATE INDEX devices_draining_idx ON devices (id) WHERE drain_until IS NOT NULL;

-- A row that retires another holds the port that its allocation has moved away from, for the players
-- who are still on it. It is a row of the same table so that one constraint keeps all ports apart.
ALTER TABLE allocations
    ADD COLUMN retires     bigint REFERENCES allocations (id) ON DELETE CASCADE,
    -- When the last players are cut off; NULL where the port does not drain.
    ADD COLUMN drain_until timestamptz,
    -- It takes no new players,
    ADD COLUMN draining    boolean NOT NULL DEFAULT false,
    -- and has none left.
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
