-- +goose Up
-- What was done under an Idempotency-Key, written in the transaction that does it. Neither the key nor the answer can
-- be told from a row: both id and the key that encrypts the answer are derived from the Idempotency-Key, which is not
-- stored. A replica of the previous version writes no rows.
CREATE TABLE idempotency_keys (
    id         bytea       PRIMARY KEY CHECK (octet_length(id) = 32),
    owner      text        NOT NULL,
    -- A code of the request that the key was first used for.
    request    bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Encrypted; NULL until the answer is known, and for good if the replica was killed before.
    answer     bytea
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_owner_idx ON idempotency_keys (owner, created_at DESC);

-- +goose Down
DROP TABLE idempotency_keys;
