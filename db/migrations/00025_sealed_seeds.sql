-- +goose Up
-- A seed is 32 bytes as it is, or 61 bytes encrypted (package atrest), where the operator gave a key file.
ALTER TABLE signing_keys DROP CONSTRAINT signing_keys_seed_check;
ALTER TABLE signing_keys ADD CONSTRAINT signing_keys_seed_check CHECK (octet_length(seed) IN (32, 61));

-- +goose Down
-- It fails while a seed is encrypted: the previous version could not read it.
ALTER TABLE signing_keys DROP CONSTRAINT signing_keys_seed_check;
ALTER TABLE signing_keys ADD CONSTRAINT signing_keys_seed_check CHECK (octet_length(seed) = 32);
