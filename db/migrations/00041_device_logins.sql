-- +goose Up
-- Logins of terminals (RFC 8628): a program asks, and a person approves it, which makes an API key of that person.
-- Replicas of the previous version have no such operations.
CREATE TABLE device_logins (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code_hash       bytea       NOT NULL, -- SHA-256 of the device code, which is not stored itself.
    user_code       text        NOT NULL,
    client          text        NOT NULL,
    host            text,
    platform        text,
    scopes          text[]      NOT NULL CHECK (cardinality(scopes) > 0),
    started_address inet,                 -- From where it was started.
    started_from    cidr,                 -- The network whose pending logins are counted.
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    polled_at       timestamptz,
    -- done: the key was handed out.
    state           text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'denied', 'done')),
    -- The key of an approved login. Until it is handed out nobody has it: its hash is of nothing. NULL if it was revoked.
    key_id          bigint REFERENCES api_keys (id) ON DELETE SET NULL
);
CREATE UNIQUE INDEX device_logins_code_hash_key ON device_logins (code_hash);
CREATE UNIQUE INDEX device_logins_user_code_key ON device_logins (user_code);
CREATE INDEX device_logins_key_id_idx ON device_logins (key_id) WHERE key_id IS NOT NULL;

-- +goose Down
-- Keys that were not handed out are of use to nobody.
DELETE FROM api_keys k USING device_logins l WHERE l.key_id = k.id AND l.state = 'approved';
DROP TABLE device_logins;
