-- +goose Up
ALTER TABLE devices
    -- The public host that the panel guessed for a tunnel server. The host is a guess while it is this one.
    -- A replica of the previous version that sets another host thereby makes it given. Hosts of earlier
    -- enrollments count as given: nobody knows any more which were guessed.
    ADD COLUMN guessed_host     text,
    -- The host that the panel would guess from the last request of the tunnel server for a control channel.
    ADD COLUMN called_from      text NOT NULL DEFAULT '',
    -- The host that was looked up last, with the last addresses that it had, separated by spaces, and since
    -- when it does not exist.
    ADD COLUMN resolved_host    text NOT NULL DEFAULT '',
    ADD COLUMN public_addresses text NOT NULL DEFAULT '',
    ADD COLUMN unresolved_since timestamptz,
    -- When the host is to be checked again; NULL: now, because the tunnel server has connected or has another.
    ADD COLUMN host_due         timestamptz;
CREATE INDEX devices_host_due_idx ON devices (host_due) WHERE kind = 'server';

-- +goose Down
DROP INDEX devices_host_due_idx;
ALTER TABLE devices
    DROP COLUMN guessed_host,
    DROP COLUMN called_from,
    DROP COLUMN resolved_host,
    DROP COLUMN public_addresses,
    DROP COLUMN unresolved_since,
    DROP COLUMN host_due;
