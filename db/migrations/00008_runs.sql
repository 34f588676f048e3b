-- +goose Up
-- The allocations of a run of neighbouring ports have the same run_id; NULL for any other. Replicas of the
-- previous version move the ports of a run one by one.
ALTER TABLE allocations ADD COLUMN run_id uuid;

-- +goose Down
ALTER TABLE allocations DROP COLUMN run_id;
