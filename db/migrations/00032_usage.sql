-- +goose Up
SELECT lock_together('devices, allocations IN SHARE ROW EXCLUSIVE', 'settings IN ACCESS EXCLUSIVE');

-- Whose usage is counted: an allocation of a device while that had an owner. The rows outlive what they name, so that
-- a device that was transferred, or an allocation that was deleted, keeps its past. owner_id and organisation_id are 0
-- for none: at most one is not.
CREATE TABLE usage_subjects (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    allocation_id   bigint NOT NULL,
    device_id       uuid   NOT NULL,
    owner_id        bigint NOT NULL,
    organisation_id bigint NOT NULL,
    CONSTRAINT usage_subjects_key UNIQUE (allocation_id, device_id, owner_id, organisation_id)
);
CREATE INDEX usage_subjects_device_id_idx ON usage_subjects (device_id);
CREATE INDEX usage_subjects_owner_id_idx ON usage_subjects (owner_id) WHERE owner_id <> 0;
CREATE INDEX usage_subjects_organisation_id_idx ON usage_subjects (organisation_id) WHERE organisation_id <> 0;

-- The counts of a subject in the minute, hour or day (of UTC) that begins at a time. All are added to with each report,
-- and so are exact at any time; they differ in how long they are kept.
CREATE TABLE usage_minutes (
    subject_id         bigint      NOT NULL,
    at                 timestamptz NOT NULL,
    download_bytes     bigint      NOT NULL,
    upload_bytes       bigint      NOT NULL,
    download_datagrams bigint      NOT NULL,
    upload_datagrams   bigint      NOT NULL,
    joins              bigint      NOT NULL,
    peak_players       integer     NOT NULL,
    PRIMARY KEY (subject_id, at)
) WITH (fillfactor = 80);
CREATE TABLE usage_hours (LIKE usage_minutes INCLUDING ALL) WITH (fillfactor = 80);
CREATE TABLE usage_days (LIKE usage_minutes INCLUDING ALL) WITH (fillfactor = 80);
-- For their end: the rows of a time lie together.
CREATE INDEX usage_minutes_at_idx ON usage_minutes USING brin (at) WITH (pages_per_range = 32);
CREATE INDEX usage_hours_at_idx ON usage_hours USING brin (at) WITH (pages_per_range = 32);
CREATE INDEX usage_days_at_idx ON usage_days (at);

-- The last report of a process of a tunnel server that is counted. Those up to it are not counted again.
CREATE TABLE usage_reports (
    server_id  uuid        NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    epoch      uuid        NOT NULL,
    sequence   bigint      NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server_id, epoch)
);

-- What a tunnel server last reported of an allocation.
CREATE TABLE usage_now (
    server_id          uuid        NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    allocation_id      bigint      NOT NULL,
    subject_id         bigint      NOT NULL, -- Whose usage it was counted as.
    reported_at        timestamptz NOT NULL,
    seconds            integer     NOT NULL,
    players            integer     NOT NULL,
    joins              bigint      NOT NULL,
    download_bytes     bigint      NOT NULL,
    upload_bytes       bigint      NOT NULL,
    download_datagrams bigint      NOT NULL,
    upload_datagrams   bigint      NOT NULL,
    PRIMARY KEY (server_id, allocation_id)
) WITH (fillfactor = 50);
CREATE INDEX usage_now_allocation_id_idx ON usage_now (allocation_id);

-- The public ports that were closed for good: what they had carried until then may be reported later. Triggers note
-- them, because replicas of the previous version, which count nothing, close ports too. They also note those that
-- allocations have left for another tunnel server: not each keeps its old port open (see retires).
CREATE TABLE usage_closed_ports (
    server_id       uuid        NOT NULL,
    allocation_id   bigint      NOT NULL,
    device_id       uuid        NOT NULL,
    owner_id        bigint      NOT NULL,
    organisation_id bigint      NOT NULL,
    closed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server_id, allocation_id)
);
CREATE INDEX usage_closed_ports_closed_at_idx ON usage_closed_ports (closed_at);

-- Notes the ports of an allocation's row, or of all of a device's. A device's are noted before it is deleted: the
-- triggers of its allocations would not find its owner any more.
-- +goose StatementBegin
CREATE FUNCTION note_closed_port() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_closed_ports AS p (server_id, allocation_id, device_id, owner_id, organisation_id)
    SELECT OLD.server_id, coalesce(OLD.retires, OLD.id), d.id, coalesce(d.owner_id, 0), coalesce(d.organisation_id, 0)
    FROM devices d WHERE d.id = OLD.device_id
    ON CONFLICT (server_id, allocation_id) DO UPDATE SET device_id = excluded.device_id, owner_id = excluded.owner_id,
        organisation_id = excluded.organisation_id, closed_at = excluded.closed_at;
    RETURN OLD;
END;
$$;
CREATE FUNCTION note_closed_ports() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_closed_ports AS p (server_id, allocation_id, device_id, owner_id, organisation_id)
    SELECT DISTINCT a.server_id, coalesce(a.retires, a.id), OLD.id, coalesce(OLD.owner_id, 0), coalesce(OLD.organisation_id, 0)
    FROM allocations a WHERE a.device_id = OLD.id ORDER BY 1, 2
    ON CONFLICT (server_id, allocation_id) DO UPDATE SET device_id = excluded.device_id, owner_id = excluded.owner_id,
        organisation_id = excluded.organisation_id, closed_at = excluded.closed_at;
    RETURN OLD;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER allocations_note_closed_port BEFORE DELETE ON allocations FOR EACH ROW EXECUTE FUNCTION note_closed_port();
CREATE TRIGGER allocations_note_left_port AFTER UPDATE OF server_id ON allocations
    FOR EACH ROW WHEN (OLD.server_id <> NEW.server_id) EXECUTE FUNCTION note_closed_port();
CREATE TRIGGER devices_note_closed_ports BEFORE DELETE ON devices FOR EACH ROW EXECUTE FUNCTION note_closed_ports();

-- How long counts are kept, in days.
ALTER TABLE settings
    ADD COLUMN usage_minutes_days integer NOT NULL DEFAULT 2 CHECK (usage_minutes_days BETWEEN 1 AND 31),
    ADD COLUMN usage_hours_days integer NOT NULL DEFAULT 90 CHECK (usage_hours_days BETWEEN 2 AND 731),
    ADD COLUMN usage_days_days integer NOT NULL DEFAULT 731 CHECK (usage_days_days BETWEEN 2 AND 3653);
SELECT audit_table('settings', 'settings', '{"","","",""}',
    '{tunnels_enabled=features.tunnels,anonymous_enrollment=enrollment.anonymous,owners_approve=enrollment.ownersApprove,organisation_creators=organisations.creators,quota=quota,rule_defaults=rules.defaults,rule_ceiling=rules.ceiling,usage_minutes_days=usage.minuteDays,usage_hours_days=usage.hourDays,usage_days_days=usage.dayDays}',
    inserted => NULL, deleted => NULL);

-- +goose Down
SELECT audit_table('settings', 'settings', '{"","","",""}',
    '{tunnels_enabled=features.tunnels,anonymous_enrollment=enrollment.anonymous,owners_approve=enrollment.ownersApprove,organisation_creators=organisations.creators,quota=quota,rule_defaults=rules.defaults,rule_ceiling=rules.ceiling}',
    inserted => NULL, deleted => NULL);
ALTER TABLE settings DROP COLUMN usage_minutes_days, DROP COLUMN usage_hours_days, DROP COLUMN usage_days_days;
DROP TRIGGER devices_note_closed_ports ON devices;
DROP TRIGGER allocations_note_left_port ON allocations;
DROP TRIGGER allocations_note_closed_port ON allocations;
DROP FUNCTION note_closed_ports();
DROP FUNCTION note_closed_port();
DROP TABLE usage_closed_ports;
DROP TABLE usage_now;
DROP TABLE usage_reports;
DROP TABLE usage_days;
DROP TABLE usage_hours;
DROP TABLE usage_minutes;
DROP TABLE usage_subjects;
