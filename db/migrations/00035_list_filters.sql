-- +goose Up
-- What lists are searched in, in lower case, and the orders in which they can be read. The texts are stored: to make
-- them of 200,000 rows takes several times as long as to search in them. No index has the states that devices report,
-- whose writes are many and stay on the row's page.
--
-- The columns rewrite both tables while nothing else reads them: one or two seconds for 200,000 allocations. Players and
-- tunnels need no database meanwhile, and the leases of devices last 15 s; requests wait, or are answered 503 with a
-- Retry-After. To fill plain columns in batches would take no such lock, but write an event for every row.
SELECT lock_together('devices, allocations IN ACCESS EXCLUSIVE', 'users, organisations IN SHARE');
ALTER TABLE allocations ADD COLUMN search text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(
    name || E'\n' || port::text || E'\n'
    || CASE WHEN strpos(local_host, ':') > 0 THEN '[' || local_host || ']' ELSE local_host END || ':' || local_port::text)) STORED;
ALTER TABLE devices ADD COLUMN search text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(
    name || E'\n' || coalesce(platform, '') || E'\n' || public_host)) STORED;
-- Of a tenant's devices, and in a search of everybody's, the lists read these instead of the rows.
DROP INDEX allocations_device_id_idx;
CREATE INDEX allocations_device_id_idx ON allocations (device_id, id) INCLUDE (retires, name, port, created_at, search);
CREATE INDEX allocations_search_idx ON allocations (id) INCLUDE (device_id, search) WHERE retires IS NULL;
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
DROP INDEX allocations_search_idx;
DROP INDEX allocations_device_id_idx;
CREATE INDEX allocations_device_id_idx ON allocations (device_id, id) INCLUDE (retires);
ALTER TABLE devices DROP COLUMN search;
ALTER TABLE allocations DROP COLUMN search;
