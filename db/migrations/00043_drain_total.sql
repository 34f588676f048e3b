-- +goose Up
SELECT lock_together('devices IN ACCESS EXCLUSIVE');
-- How many allocations a tunnel server had when its drain began. Replicas of the previous version begin drains with 0.
ALTER TABLE devices ADD COLUMN drain_total integer NOT NULL DEFAULT 0;

-- +goose Down
SELECT lock_together('devices IN ACCESS EXCLUSIVE');
ALTER TABLE devices DROP COLUMN drain_total;
