-- +goose Up
ALTER TABLE devices ADD COLUMN region text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE devices DROP COLUMN region;
