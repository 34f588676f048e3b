-- +goose Up
-- The audit trail: a row for each change that somebody makes, written in the transaction of the change by the
-- triggers below, and one for refused attempts of a kind. It has no foreign keys, because it outlives what it
-- is about. Who makes a change is in the setting eclitunnel.actor of the transaction, a JSON object; replicas
-- of the previous version do not set it, and so their changes are those of an unknown actor.
CREATE TABLE audit_log (
    at              timestamptz NOT NULL DEFAULT now(),
    id              bigint GENERATED ALWAYS AS IDENTITY,
    actor_kind      text        NOT NULL,
    actor_id        text        NOT NULL,
    actor_name      text        NOT NULL,
    -- An admin of the panel, or who has a shell: others see neither their names nor their addresses.
    actor_admin     boolean     NOT NULL DEFAULT false,
    address         inet,
    action          text        NOT NULL,
    target_kind     text        NOT NULL,
    target_id       text        NOT NULL,
    target_name     text        NOT NULL,
    -- Whom it concerns: the owner of the target.
    user_id         bigint,
    organisation_id bigint,
    -- {"field": [before, after]}, of columns that hold no secret.
    changes         jsonb       NOT NULL DEFAULT '{}',
    count           bigint      NOT NULL DEFAULT 1,
    -- Of refused attempts: those with the same values are counted by one row.
    refusal_window  text,
    refusal_key     bytea,
    PRIMARY KEY (at, id)
);
-- One index for each filter, in the order of the list. The order is that of an expression which the primary
-- key does not have: the planner would read that instead and skip other rows, of which there may be a million
-- if what is looked for is old.
CREATE INDEX audit_log_user_idx ON audit_log (user_id, (at AT TIME ZONE 'UTC'), id) WHERE user_id IS NOT NULL;
CREATE INDEX audit_log_organisation_idx ON audit_log (organisation_id, (at AT TIME ZONE 'UTC'), id) WHERE organisation_id IS NOT NULL;
CREATE INDEX audit_log_actor_idx ON audit_log (actor_kind, actor_id, (at AT TIME ZONE 'UTC'), id);
CREATE INDEX audit_log_target_idx ON audit_log (target_kind, target_id, (at AT TIME ZONE 'UTC'), id);
CREATE INDEX audit_log_action_idx ON audit_log (action, (at AT TIME ZONE 'UTC'), id);
CREATE INDEX audit_log_kind_idx ON audit_log ((split_part(action, '.', 1)), (at AT TIME ZONE 'UTC'), id);
CREATE UNIQUE INDEX audit_log_refusal_key ON audit_log (refusal_window, refusal_key) WHERE refusal_window IS NOT NULL;

-- The trigger function of audit_table, whose parameters are its arguments: kind, the four of subject, fields.
-- +goose StatementBegin
CREATE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    old_row jsonb := to_jsonb(OLD);
    new_row jsonb := to_jsonb(NEW);
    subject jsonb := coalesce(new_row, old_row);
    actor   jsonb := coalesce(nullif(current_setting('eclitunnel.actor', true), ''), '{}')::jsonb;
    kind    text  := TG_ARGV[0];
    verb    text;
    entry   audit_log;
BEGIN
    verb := CASE
        WHEN TG_TABLE_NAME = 'sessions' THEN 'login'
        WHEN TG_TABLE_NAME = 'password_links' THEN 'password_link'
        WHEN TG_TABLE_NAME = 'revoked_signing_keys' THEN 'revoke'
        WHEN TG_OP = 'INSERT' THEN 'create'
        WHEN TG_OP = 'DELETE' AND kind = 'device' AND old_row ->> 'approved_at' IS NULL THEN 'deny'
        WHEN TG_OP = 'DELETE' THEN 'delete'
        WHEN kind = 'user' AND old_row -> 'suspended' <> new_row -> 'suspended' THEN
            CASE WHEN (new_row ->> 'suspended')::boolean THEN 'suspend' ELSE 'restore' END
        WHEN kind = 'user' AND old_row -> 'password_hash' <> new_row -> 'password_hash' THEN 'password'
        WHEN kind = 'device' AND old_row -> 'approved_at' <> new_row -> 'approved_at' THEN 'approve'
        WHEN kind = 'device' AND (old_row -> 'owner_id', old_row -> 'organisation_id') <> (new_row -> 'owner_id', new_row -> 'organisation_id') THEN 'transfer'
        WHEN kind = 'device' AND old_row -> 'token_version' <> new_row -> 'token_version' THEN 'token'
        WHEN kind = 'device' AND old_row -> 'drain_until' <> new_row -> 'drain_until' AND new_row ->> 'drain_until' IS NOT NULL THEN 'drain'
        WHEN kind = 'allocation' AND old_row -> 'server_id' <> new_row -> 'server_id' THEN 'move'
        WHEN kind = 'signing_key' THEN 'retire'
        ELSE 'update'
    END;
    -- Each poll of a device that has not connected yet gets a token. Only the first one is an event.
    IF kind || '.' || verb = 'device.token' AND old_row ->> 'first_connected_at' IS NULL AND (old_row ->> 'token_version')::bigint > 0
        AND coalesce(actor ->> 'kind', 'unknown') IN ('device', 'anonymous', 'unknown') THEN
        RETURN NULL;
    END IF;

    entry.user_id := (subject ->> TG_ARGV[3])::bigint;
    entry.organisation_id := (subject ->> TG_ARGV[4])::bigint;
    IF TG_TABLE_NAME = 'allocations' THEN
        SELECT d.owner_id, d.organisation_id INTO entry.user_id, entry.organisation_id
        FROM devices d WHERE d.id = (subject ->> 'device_id')::uuid;
    END IF;
    entry.target_name := subject ->> TG_ARGV[2];
    IF TG_ARGV[2] = '' AND entry.user_id IS NOT NULL THEN
        SELECT u.email INTO entry.target_name FROM users u WHERE u.id = entry.user_id;
    END IF;
    SELECT jsonb_object_agg(field, jsonb_build_array(old_row -> name, new_row -> name)) INTO entry.changes
    FROM (SELECT split_part(f, '=', 1) AS name, split_part(f, '=', 2) AS field FROM unnest(TG_ARGV[5:]) AS f) AS fields
    WHERE nullif(old_row -> name, 'null') IS DISTINCT FROM nullif(new_row -> name, 'null');

    INSERT INTO audit_log (actor_kind, actor_id, actor_name, actor_admin, address, action, target_kind, target_id, target_name,
        user_id, organisation_id, changes)
    VALUES (coalesce(actor ->> 'kind', 'unknown'), coalesce(actor ->> 'id', ''), coalesce(actor ->> 'name', ''),
        coalesce((actor ->> 'admin')::boolean, false), (actor ->> 'address')::inet, CASE TG_TABLE_NAME WHEN 'sessions' THEN 'session' ELSE kind END || '.' || verb,
        kind, coalesce(subject ->> TG_ARGV[1], ''), coalesce(entry.target_name, ''),
        entry.user_id, entry.organisation_id, coalesce(entry.changes, '{}'));
    -- The former owner learns of it too.
    IF verb = 'transfer' AND coalesce(old_row ->> TG_ARGV[3], old_row ->> TG_ARGV[4]) IS NOT NULL THEN
        INSERT INTO audit_log (actor_kind, actor_id, actor_name, actor_admin, address, action, target_kind, target_id, target_name,
            user_id, organisation_id, changes)
        VALUES (coalesce(actor ->> 'kind', 'unknown'), coalesce(actor ->> 'id', ''), coalesce(actor ->> 'name', ''),
            coalesce((actor ->> 'admin')::boolean, false), (actor ->> 'address')::inet, kind || '.release', kind, coalesce(subject ->> TG_ARGV[1], ''),
            coalesce(entry.target_name, ''),
            (old_row ->> TG_ARGV[3])::bigint, (old_row ->> TG_ARGV[4])::bigint, coalesce(entry.changes, '{}'));
    END IF;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd

-- audit_table records the changes of a table as those of a kind of target. Calling it again replaces what it
-- did. Its parameters:
--   subject   the columns of the target's id, name, user and organisation, '' for none; without a name it is
--             the user's email
--   fields    the columns whose values are recorded, which must not hold secrets, as 'column=field of the API'
--   hidden    columns whose changes are recorded without their values
--   inserted, updated, deleted   conditions on the row $, such as '$.expires_at > now()'; NULL for never
-- +goose StatementBegin
CREATE FUNCTION audit_table(relation regclass, kind text, subject text[], fields text[], hidden text[] DEFAULT '{}',
    inserted text DEFAULT 'true', updated text DEFAULT 'true', deleted text DEFAULT 'true') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    arguments text;
    changed   text;
    condition text;
BEGIN
    SELECT string_agg(quote_literal(a), ', ') INTO arguments FROM unnest(kind || subject || fields) AS a;
    SELECT string_agg(quote_ident(name), ', '), string_agg(format('OLD.%1$I IS DISTINCT FROM NEW.%1$I', name), ' OR ')
    INTO changed, condition
    FROM (SELECT split_part(f, '=', 1) AS name FROM unnest(fields || hidden) AS f) AS columns;
    EXECUTE format('DROP TRIGGER IF EXISTS audit_insert ON %s', relation);
    EXECUTE format('DROP TRIGGER IF EXISTS audit_update ON %s', relation);
    EXECUTE format('DROP TRIGGER IF EXISTS audit_delete ON %s', relation);
    IF inserted IS NOT NULL THEN
        EXECUTE format('CREATE TRIGGER audit_insert AFTER INSERT ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION audit_change(%s)',
            relation, replace(inserted, '$', 'NEW'), arguments);
    END IF;
    -- Statements that set none of these columns, such as those of presence, do not even look at the condition.
    IF updated IS NOT NULL AND changed IS NOT NULL THEN
        EXECUTE format('CREATE TRIGGER audit_update AFTER UPDATE OF %s ON %s FOR EACH ROW WHEN ((%s) AND (%s)) EXECUTE FUNCTION audit_change(%s)',
            changed, relation, condition, replace(updated, '$', 'NEW'), arguments);
    END IF;
    IF deleted IS NOT NULL THEN
        EXECUTE format('CREATE TRIGGER audit_delete AFTER DELETE ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION audit_change(%s)',
            relation, replace(deleted, '$', 'OLD'), arguments);
    END IF;
END;
$$;
-- +goose StatementEnd

-- Sessions that somebody ends, one row for each user and statement. Those that have expired, or that go with
-- their user, are no event.
-- +goose StatementBegin
CREATE FUNCTION audit_sessions_ended() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    actor jsonb := coalesce(nullif(current_setting('eclitunnel.actor', true), ''), '{}')::jsonb;
BEGIN
    INSERT INTO audit_log (actor_kind, actor_id, actor_name, actor_admin, address, action, target_kind, target_id, target_name, user_id, count)
    SELECT coalesce(actor ->> 'kind', 'unknown'), coalesce(actor ->> 'id', ''), coalesce(actor ->> 'name', ''),
        coalesce((actor ->> 'admin')::boolean, false), (actor ->> 'address')::inet, 'session.end', 'user', u.id, u.email, u.id, count(*)
    FROM ended e JOIN users u ON u.id = e.user_id
    WHERE e.expires_at > now() AND actor ->> 'kind' IS DISTINCT FROM 'panel' GROUP BY u.id;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd

SELECT lock_together('users, sessions, password_links, organisations, organisation_members, invitations, api_keys, identities,
    devices, allocations, settings, signing_keys, revoked_signing_keys IN SHARE ROW EXCLUSIVE');

-- A statement for each table.
SELECT audit_table('users', 'user', '{id,email,id,""}', '{email=email,email_proven=emailProven,role=role,suspended=suspended}', '{password_hash}');
SELECT audit_table('password_links', 'user', '{user_id,"",user_id,""}', '{}', '{token_hash}', deleted => NULL);
SELECT audit_table('sessions', 'user', '{user_id,"",user_id,""}', '{}', deleted => NULL);
SELECT audit_table('organisations', 'organisation', '{id,name,"",id}', '{name=name,rules=rules,provider=provider,external_id=externalId}');
SELECT audit_table('identities', 'identity', '{subject,email,user_id,""}', '{provider=provider,email=email}');
SELECT audit_table('organisation_members', 'member', '{user_id,"",user_id,organisation_id}', '{role=role}');
SELECT audit_table('invitations', 'invitation', '{id,email,"",organisation_id}', '{email=email,role=role}',
    deleted => '$.expires_at > now()');
SELECT audit_table('api_keys', 'key', '{id,name,user_id,organisation_id}', '{name=name,scopes=scopes,expires_at=expiresAt}');
SELECT audit_table('devices', 'device', '{id,name,owner_id,organisation_id}',
    '{name=name,kind=kind,owner_id=ownerId,organisation_id=organisationId,public_host=server.publicHost,port_first=server.portRange.first,port_last=server.portRange.last,region=server.region,cordoned=server.cordoned,drain_until=server.drainUntil,drain_move=server.drainMove}',
    '{approved_at,token_version}',
    inserted => '$.approved_at IS NOT NULL', deleted => '$.approved_at IS NOT NULL OR $.expires_at > now()');
-- A row that retires another one is the old port of a moved allocation.
SELECT audit_table('allocations', 'allocation', '{id,name,"",""}',
    '{device_id=deviceId,server_id=serverId,protocol=protocol,port=port,local_host=localHost,local_port=localPort,name=name,proxy_protocol=options.proxyProtocol,udp_idle_seconds=options.udpIdleSeconds,player_addresses=options.playerAddresses,rules=rules}',
    inserted => '$.retires IS NULL', updated => '$.retires IS NULL', deleted => '$.retires IS NULL');
SELECT audit_table('settings', 'settings', '{"","","",""}',
    '{tunnels_enabled=features.tunnels,anonymous_enrollment=enrollment.anonymous,owners_approve=enrollment.ownersApprove,organisation_creators=organisations.creators,rule_defaults=rules.defaults,rule_ceiling=rules.ceiling}',
    inserted => NULL, deleted => NULL);
SELECT audit_table('signing_keys', 'signing_key', '{id,"","",""}', '{}', '{retired_at}', deleted => '$.retired_at IS NOT NULL');
SELECT audit_table('revoked_signing_keys', 'signing_key', '{id,"","",""}', '{}', updated => NULL, deleted => NULL);
CREATE TRIGGER audit_ended AFTER DELETE ON sessions REFERENCING OLD TABLE AS ended
    FOR EACH STATEMENT EXECUTE FUNCTION audit_sessions_ended();

-- +goose Down
DROP FUNCTION audit_sessions_ended() CASCADE;
DROP FUNCTION audit_change() CASCADE;
DROP FUNCTION audit_table(regclass, text, text[], text[], text[], text, text, text);
DROP TABLE audit_log;
