-- +goose Up
-- A tunnel client's report on the game behind an allocation.
ALTER TABLE allocations
    ADD COLUMN target text NOT NULL DEFAULT 'unknown' CHECK (target IN ('unknown', 'up', 'down')),
    ADD COLUMN target_reason text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE allocations DROP COLUMN target_reason, DROP COLUMN target;
