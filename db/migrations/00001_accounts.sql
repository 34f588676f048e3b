-- +goose Up
CREATE TABLE users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email         text        NOT NULL CHECK (email <> ''),
    password_hash text        NOT NULL,
    role          text        NOT NULL CHECK (role IN ('user', 'admin')),
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE sessions (
    id         uuid PRIMARY KEY,
    user_id    bigint      NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_user_id_idx ON sessions (user_id);
CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);

CREATE TABLE organisations (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text        NOT NULL CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE organisation_members (
    organisation_id bigint NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    user_id         bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role            text   NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    PRIMARY KEY (organisation_id, user_id)
);
CREATE INDEX organisation_members_user_id_idx ON organisation_members (user_id);

CREATE TABLE signing_keys (
    id         text PRIMARY KEY,
    seed       bytea       NOT NULL CHECK (octet_length(seed) = 32),
    created_at timestamptz NOT NULL
);

-- The primary key allows only one row.
CREATE TABLE settings (
    id                   boolean PRIMARY KEY DEFAULT true CHECK (id),
    tunnels_enabled      boolean NOT NULL DEFAULT true,
    anonymous_enrollment boolean NOT NULL DEFAULT true
);
INSERT INTO settings DEFAULT VALUES;

CREATE TABLE rate_limits (
    key       text PRIMARY KEY,
    hits      bigint      NOT NULL,
    resets_at timestamptz NOT NULL
);
CREATE INDEX rate_limits_resets_at_idx ON rate_limits (resets_at);

-- +goose Down
DROP TABLE rate_limits;
DROP TABLE settings;
DROP TABLE signing_keys;
DROP TABLE organisation_members;
DROP TABLE organisations;
DROP TABLE sessions;
DROP TABLE users;
