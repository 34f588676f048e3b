-- +goose Up
CREATE TABLE replicas (
    id               uuid PRIMARY KEY,
    renewed_at       timestamptz NOT NULL,
    lease_expires_at timestamptz NOT NULL
);

CREATE TABLE devices (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name               text        NOT NULL CHECK (name <> ''),
    kind               text        NOT NULL CHECK (kind IN ('client', 'server')),
    owner_id           bigint REFERENCES users (id) ON DELETE SET NULL,
    organisation_id    bigint REFERENCES organisations (id) ON DELETE SET NULL,
    -- The name by which a panel identifies its embedded tunnel server. Renaming the device does not change it.
    embedded_name      text,
    user_code          text        NOT NULL DEFAULT '',
    code_hash          bytea,
    created_at         timestamptz NOT NULL,
    expires_at         timestamptz NOT NULL,
    approved_at        timestamptz,
    polled_at          timestamptz,
    token_version      bigint      NOT NULL DEFAULT 0,
    generation         bigint      NOT NULL DEFAULT 0,
    first_connected_at timestamptz,
    last_seen_at       timestamptz,
    replica_id         uuid REFERENCES replicas (id),
    agent_version      text,
    platform           text,
    public_host        text        NOT NULL DEFAULT '',
    relay_port         integer     NOT NULL DEFAULT 0 CHECK (relay_port BETWEEN 0 AND 65535),
    fingerprint        text        NOT NULL DEFAULT '',
    port_first         integer     NOT NULL DEFAULT 0,
    port_last          integer     NOT NULL DEFAULT 0,
    CONSTRAINT devices_embedded_name_key UNIQUE (embedded_name),
    CONSTRAINT devices_code_hash_key UNIQUE (code_hash),
    CONSTRAINT devices_one_owner CHECK (num_nonnulls(owner_id, organisation_id) <= 1),
    CONSTRAINT devices_pending_has_codes
        CHECK (approved_at IS NOT NULL OR (user_code <> '' AND code_hash IS NOT NULL)),
    CONSTRAINT devices_port_range
        CHECK ((port_first = 0 AND port_last = 0) OR (port_first >= 1 AND port_first <= port_last AND port_last <= 65535)),
    CONSTRAINT devices_embedded_is_server CHECK (embedded_name IS NULL OR kind = 'server')
);
CREATE UNIQUE INDEX devices_pending_user_code_key ON devices (user_code) WHERE approved_at IS NULL;
CREATE INDEX devices_user_code_idx ON devices (user_code);
CREATE INDEX devices_pending_expires_at_idx ON devices (expires_at) WHERE approved_at IS NULL;
CREATE INDEX devices_newest_idx ON devices (created_at DESC, id DESC);
CREATE INDEX devices_owner_id_idx ON devices (owner_id);
CREATE INDEX devices_organisation_id_idx ON devices (organisation_id);
CREATE INDEX devices_replica_id_idx ON devices (replica_id);

CREATE TABLE allocations (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id        uuid        NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    server_id        uuid        NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    protocol         text        NOT NULL CHECK (protocol IN ('tcp', 'udp')),
    port             integer     NOT NULL CHECK (port BETWEEN 1 AND 65535),
    local_host       text        NOT NULL CHECK (local_host <> ''),
    local_port       integer     NOT NULL CHECK (local_port BETWEEN 1 AND 65535),
    name             text        NOT NULL,
    proxy_protocol   text        NOT NULL CHECK (proxy_protocol IN ('none', 'v1', 'v2')),
    udp_idle_seconds integer     NOT NULL CHECK (udp_idle_seconds BETWEEN 5 AND 3600),
    created_at       timestamptz NOT NULL DEFAULT now(),
    server_state     text        NOT NULL DEFAULT 'pending' CHECK (server_state IN ('pending', 'ready', 'failed')),
    server_reason    text        NOT NULL DEFAULT '',
    client_state     text        NOT NULL DEFAULT 'pending' CHECK (client_state IN ('pending', 'ready', 'failed')),
    client_reason    text        NOT NULL DEFAULT '',
    CONSTRAINT allocations_port_key UNIQUE (server_id, protocol, port)
);
CREATE INDEX allocations_device_id_idx ON allocations (device_id);

-- +goose Down
DROP TABLE allocations;
DROP TABLE devices;
DROP TABLE replicas;
