-- +goose Up
-- From where a session was last used, and when, to the minute. Replicas of the previous version write none.
ALTER TABLE sessions
    ADD COLUMN last_used_at timestamptz, -- NULL where it is not known.
    ADD COLUMN address      text NOT NULL DEFAULT '',
    ADD COLUMN user_agent   text NOT NULL DEFAULT '';
-- The order of the list of a user's sessions.
CREATE INDEX sessions_order_idx ON sessions (user_id, created_at DESC, id DESC);
DROP INDEX sessions_user_id_idx;

-- +goose Down
CREATE INDEX sessions_user_id_idx ON sessions (user_id);
DROP INDEX sessions_order_idx;
ALTER TABLE sessions DROP COLUMN last_used_at, DROP COLUMN address, DROP COLUMN user_agent;
