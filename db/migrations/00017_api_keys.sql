-- +goose Up
-- Keys with which programs act as a user, or as an admin of an organisation. Replicas of the previous version
-- take none: to them such a key is a token that is not valid.
CREATE TABLE api_keys (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id         bigint REFERENCES users (id) ON DELETE CASCADE,
    organisation_id bigint REFERENCES organisations (id) ON DELETE CASCADE,
    name            text        NOT NULL CHECK (name <> ''),
    prefix          text        NOT NULL, -- The first characters, by which people recognise the key.
    hash            bytea       NOT NULL, -- SHA-256 of the key, which is not stored itself.
    scopes          text[]      NOT NULL CHECK (cardinality(scopes) > 0),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz,
    last_used_at    timestamptz,
    last_used_from  inet,
    CHECK (num_nonnulls(user_id, organisation_id) = 1)
);
CREATE UNIQUE INDEX api_keys_hash_key ON api_keys (hash);
CREATE INDEX api_keys_user_id_idx ON api_keys (user_id);
CREATE INDEX api_keys_organisation_id_idx ON api_keys (organisation_id);

-- +goose Down
DROP TABLE api_keys;
