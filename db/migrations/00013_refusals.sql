-- +goose Up
-- What the public port of an allocation has refused since it was opened, by reason: players or datagrams.
CREATE TABLE refusals (
    allocation_id bigint NOT NULL REFERENCES allocations (id) ON DELETE CASCADE,
    kind          text   NOT NULL CHECK (kind IN ('players', 'datagrams')),
    reason        text   NOT NULL,
    count         bigint NOT NULL CHECK (count > 0),
    PRIMARY KEY (allocation_id, kind, reason)
);

-- The counts are of one port. A trigger forgets them with it, since replicas of the previous version, which
-- do not know them, move allocations too.
-- +goose StatementBegin
CREATE FUNCTION forget_refusals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM refusals WHERE allocation_id = NEW.id;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER allocations_forget_refusals AFTER UPDATE OF server_id, port ON allocations
    FOR EACH ROW WHEN ((OLD.server_id, OLD.port) IS DISTINCT FROM (NEW.server_id, NEW.port))
    EXECUTE FUNCTION forget_refusals();

-- +goose Down
DROP TRIGGER allocations_forget_refusals ON allocations;
DROP FUNCTION forget_refusals();
DROP TABLE refusals;
