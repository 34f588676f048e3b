-- +goose Up
-- The network from which an enrollment without an owner was started, while it is pending: how many may be
-- pending of one network is limited. Replicas of the previous version leave it NULL.
ALTER TABLE devices ADD COLUMN started_from cidr;

-- +goose Down
ALTER TABLE devices DROP COLUMN started_from;
