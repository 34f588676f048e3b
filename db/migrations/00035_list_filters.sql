-- +goose Up
-- What lists are searched in, in lower case, and the orders in which they can be read. The texts are stored: to make
-- them of 200,000 rows takes several times as long as to search in them. They are of no index, and neither are the
-- states that devices report, whose writes are many and stay on the row's page.
SELECT lock_together('devices, allocations IN ACCESS EXCLUSIVE', 'users, organisations IN SHARE');
ALTER TABLE allocations ADD COLUMN search text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(
    name || E'\n' || port::text || E'\n'
    || CASE WHEN strpos(local_host, ':') > 0 THEN '[' || local_host || ']' ELSE local_host END || ':' || local_port::text)) STORED;
ALTER TABLE devices ADD COLUMN search text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(
    name || E'\n' || coalesce(platform, '') || E'\n' || public_host)) STORED;
CREATE INDEX allocations_name_idx ON allocations ((lower(name) COLLATE "C"), id) WHERE retires IS NULL;
CREATE INDEX allocations_port_idx ON allocations (port, id) WHERE retires IS NULL;
CREATE INDEX allocations_created_at_idx ON allocations (created_at, id) WHERE retires IS NULL;
CREATE INDEX devices_name_idx ON devices ((lower(name) COLLATE "C"), id);
CREATE INDEX users_created_at_idx ON users (created_at, id);
CREATE INDEX organisations_created_at_idx ON organisations (created_at, id);

-- +goose Down
SELECT lock_together('devices, allocations IN ACCESS EXCLUSIVE', 'users, organisations IN ACCESS EXCLUSIVE');
DROP INDEX organisations_created_at_idx;
DROP INDEX users_created_at_idx;
DROP INDEX devices_name_idx;
DROP INDEX allocations_created_at_idx;
DROP INDEX allocations_port_idx;
DROP INDEX allocations_name_idx;
ALTER TABLE devices DROP COLUMN search;
ALTER TABLE allocations DROP COLUMN search;
