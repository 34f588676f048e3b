-- +goose Up
-- A key signs from signs_from on, until a newer one does. needed_at is when it was last needed to sign
-- tickets; from retired_at on it only verifies tokens that are valid for longer. The previous version
-- neither reads nor writes these columns.
ALTER TABLE signing_keys
    ADD COLUMN signs_from timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN needed_at  timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN retired_at timestamptz;
UPDATE signing_keys SET signs_from = created_at;

-- The key that signed the token with which a device last connected, and that token's version. If the
-- version is not the current one, the key of the current token is not known.
ALTER TABLE devices
    ADD COLUMN token_key         text,
    ADD COLUMN token_key_version bigint;

-- +goose Down
ALTER TABLE devices DROP COLUMN token_key_version, DROP COLUMN token_key;
ALTER TABLE signing_keys DROP COLUMN retired_at, DROP COLUMN needed_at, DROP COLUMN signs_from;
