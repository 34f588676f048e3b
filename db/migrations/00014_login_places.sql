-- +goose Up
-- The secret that signs the cookies of browsers that have logged in, and keys the hashes below.
ALTER TABLE settings ADD COLUMN login_secret bytea NOT NULL
    DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');

-- From where users have logged in: keyed hashes of addresses. Replicas of the previous version record none.
CREATE TABLE login_places (
    user_id bigint      NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    place   bytea       NOT NULL,
    used_at timestamptz NOT NULL, -- The last login.
    PRIMARY KEY (user_id, place)
);
CREATE INDEX login_places_used_at ON login_places (used_at);

-- +goose Down
DROP TABLE login_places;
ALTER TABLE settings DROP COLUMN login_secret;
