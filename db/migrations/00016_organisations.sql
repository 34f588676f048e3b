-- +goose Up
-- Takes locks, all or none. Transactions of running replicas lock the same tables in more than one order: to wait
-- for one while holding another would be a deadlock, and would hold up every statement meanwhile.
-- +goose StatementBegin
CREATE FUNCTION lock_together(VARIADIC locks text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before text := current_setting('lock_timeout');
    lock   text;
BEGIN
    PERFORM set_config('lock_timeout', '100ms', true);
    FOR attempt IN 1..300 LOOP
        BEGIN
            FOREACH lock IN ARRAY locks LOOP
                EXECUTE 'LOCK TABLE ' || lock || ' MODE';
            END LOOP;
            PERFORM set_config('lock_timeout', before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.05 * random()); -- Those that it had are released.
        END;
    END LOOP;
    RAISE EXCEPTION 'the tables stay locked';
END;
$$;
-- +goose StatementEnd

SELECT lock_together('devices, settings IN ACCESS EXCLUSIVE', 'users, organisations IN SHARE ROW EXCLUSIVE');

-- A tunnel server without an organisation serves everybody: deleting an organisation must not make it that.
ALTER TABLE devices
    DROP CONSTRAINT devices_organisation_id_fkey,
    ADD CONSTRAINT devices_organisation_id_fkey
        FOREIGN KEY (organisation_id) REFERENCES organisations (id) ON DELETE RESTRICT;
-- The order of the list of organisations, which is also searched by the beginning of the name.
CREATE INDEX organisations_order_idx ON organisations (lower(name) COLLATE "C", id);

-- Links with which users become members. invited_by is NULL if no person made it.
CREATE TABLE invitations (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint      NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    role            text        NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    email           text        CHECK (email <> ''),
    invited_by      bigint      REFERENCES users (id) ON DELETE CASCADE,
    token_hash      bytea       NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX invitations_token_hash_key ON invitations (token_hash);
CREATE INDEX invitations_organisation_id_idx ON invitations (organisation_id, id);
CREATE INDEX invitations_invited_by_idx ON invitations (invited_by);
CREATE INDEX invitations_expires_at_idx ON invitations (expires_at);

ALTER TABLE settings ADD COLUMN organisation_creators text NOT NULL DEFAULT 'admins'
    CHECK (organisation_creators IN ('admins', 'everyone'));

-- +goose Down
ALTER TABLE settings DROP COLUMN organisation_creators;
DROP TABLE invitations;
DROP INDEX organisations_order_idx;
LOCK TABLE devices IN ACCESS EXCLUSIVE MODE;
ALTER TABLE devices
    DROP CONSTRAINT devices_organisation_id_fkey,
    ADD CONSTRAINT devices_organisation_id_fkey
        FOREIGN KEY (organisation_id) REFERENCES organisations (id) ON DELETE SET NULL;
DROP FUNCTION lock_together(text[]);
