-- +goose Up
ALTER TABLE allocations ADD COLUMN player_addresses boolean NOT NULL DEFAULT true;

-- +goose Down
ALTER TABLE allocations DROP COLUMN player_addresses;
