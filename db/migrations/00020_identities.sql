-- +goose Up
SELECT lock_together('users, organisations IN ACCESS EXCLUSIVE');

-- Whether the email is known to be the user's: an admin set it, as all have been set that replicas of the previous
-- version set, or a provider has verified it.
ALTER TABLE users ADD COLUMN email_proven boolean NOT NULL DEFAULT true;

-- Who a user is at an identity provider.
CREATE TABLE identities (
    provider   text        NOT NULL CHECK (provider <> ''),
    subject    text        NOT NULL CHECK (subject <> ''),
    user_id    bigint      NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    email      text        NOT NULL, -- What the provider said last; empty if it said none.
    -- Whether the provider said last that the user is an admin. NULL if it has not, at first or since an admin of
    -- the panel set the role.
    admin      boolean,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, subject)
);
CREATE INDEX identities_user_id_idx ON identities (user_id);

-- Organisations of an identity provider have both; those that were made here have neither, as all have that
-- replicas of the previous version make.
ALTER TABLE organisations
    ADD COLUMN provider text,
    ADD COLUMN external_id text,
    ADD CONSTRAINT organisations_provider_check CHECK ((provider IS NULL) = (external_id IS NULL));
CREATE UNIQUE INDEX organisations_external_id_key ON organisations (provider, external_id);

-- +goose Down
DROP INDEX organisations_external_id_key;
ALTER TABLE organisations
    DROP CONSTRAINT organisations_provider_check,
    DROP COLUMN external_id,
    DROP COLUMN provider;
DROP TABLE identities;
ALTER TABLE users DROP COLUMN email_proven;
