-- +goose Up
-- In the order in which a login at a replica of the previous version locks: sessions, then users.
LOCK TABLE sessions IN SHARE ROW EXCLUSIVE MODE;
ALTER TABLE users ADD COLUMN suspended boolean NOT NULL DEFAULT false;
-- The order of the list of users, which is also searched by the beginning of the email. Not users_email_key,
-- whose order is that of the database's locale.
CREATE INDEX users_order_idx ON users (lower(email) COLLATE "C");

-- A link with which a user sets a password; at most one of each user.
CREATE TABLE password_links (
    user_id    bigint PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    token_hash bytea       NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX password_links_token_hash_key ON password_links (token_hash);

-- Replicas of the previous version, which run beside this one during an upgrade, do not know of suspended
-- users: those keep no session, and get none.
-- +goose StatementBegin
CREATE FUNCTION refuse_suspended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The lock waits for a suspension that has not been committed.
    IF (SELECT suspended FROM users WHERE id = NEW.user_id FOR SHARE) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER sessions_refuse_suspended BEFORE INSERT ON sessions
    FOR EACH ROW EXECUTE FUNCTION refuse_suspended();

-- +goose Down
DROP TRIGGER sessions_refuse_suspended ON sessions;
DROP FUNCTION refuse_suspended();
DROP TABLE password_links;
DROP INDEX users_order_idx;
ALTER TABLE users DROP COLUMN suspended;
